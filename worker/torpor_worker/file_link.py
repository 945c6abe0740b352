"""Work on a guest's files, over its link: many pieces at once, each with a window of its own in both directions."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from torpor_worker.files import FileRefused, FileWork
from torpor_worker.guest import frames
from torpor_worker.guest.file_access import KINDS
from torpor_worker.guest.frames import FrameType
from torpor_worker.sandbox import SandboxDied, SandboxError

PIECE_BYTES = 48 << 10
"""What the guest hands on in one packet."""
WINDOW_BYTES = 144 << 10
TOLD_AT_BYTES = 48 << 10
"""So much is taken before the guest is told."""
TAG = re.compile(r"-?[0-9a-f][0-9a-f-]{0,99}")
SHA256 = re.compile(r"[0-9a-f]{64}")
STALL_SECONDS = 60.0
"""How long a guest may do nothing; applying a change takes at most as long in it."""

Send = Callable[[FrameType, int, bytes], Awaitable[None]]


class FileLink:
    """All work on files that this host has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._transfers: dict[int, LinkTransfer] = {}
        self._next = 0
        self._known: bool | None = None
        self._lost: str | None = None
        self._sending = 0
        self._may_send = asyncio.Event()
        self._may_send.set()
        self._all_sent = asyncio.Event()
        self._all_sent.set()

    async def hold(self) -> bool:
        """Send nothing from now on, until `go_on`, but what a machine's log says; whether there is work under way.

        A frame that is in the pipe when an image is written is heard late, if at all.
        """
        self._may_send.clear()
        await self._all_sent.wait()
        return bool(self._transfers)

    def go_on(self) -> None:
        """Send what was held back."""
        self._may_send.set()

    async def _say(self, kind: FrameType, number: int, body: bytes) -> None:
        while not self._may_send.is_set():  # it may be held again before this is resumed
            await self._may_send.wait()
        self._sending += 1
        self._all_sent.clear()
        try:
            await self._send(kind, number, body)
        finally:
            self._sending -= 1
            if not self._sending:
                self._all_sent.set()

    def begin(self, *, known: bool) -> None:
        """The guest has been greeted: what an earlier host had asked for is over. `known`: whether it has files."""
        self._known = known

    async def open(self, work: FileWork) -> LinkTransfer:
        """Begin a piece of work."""
        if self._lost is not None:
            raise SandboxDied(self._lost)
        if not self._known:
            raise FileRefused(
                "files_unsupported",
                "The machine's guest is older than files, and cannot be replaced; code in it can read and write them.",
            )
        number, self._next = self._next, self._next + 1
        transfer = self._transfers[number] = LinkTransfer(number, self._say, self._transfers)
        fields = asdict(work) | {"window": WINDOW_BYTES}
        try:
            await self._say(FrameType.FILE_OPEN, number, json.dumps(fields).encode())
        except BaseException:
            self._transfers.pop(number, None)
            raise
        return transfer

    async def apply(self, position: int, number: int) -> None:
        """Have a change that is prepared made true: from now on it is not given up."""
        transfer = self._transfers.get(number)
        if transfer is not None:
            transfer.is_applied = True
        await self._send(FrameType.FILE_APPLY, position, json.dumps(number).encode())

    def take(self, kind: int, number: int, body: bytes) -> None:
        """A frame about one of them; what is said of one that is over is dropped."""
        transfer = self._transfers.get(number)
        if transfer is not None:
            transfer.take(kind, body)

    def lose(self, reason: str) -> None:
        """The guest is gone."""
        self._lost = reason
        self._may_send.set()
        for transfer in list(self._transfers.values()):
            transfer.fail(SandboxDied(reason))


class LinkTransfer:
    """The real `torpor_worker.files.FileTransfer`."""

    def __init__(self, number: int, send: Send, all_of_them: dict[int, LinkTransfer]) -> None:
        self._number = number
        self._send = send
        self._all = all_of_them
        self._arrived: deque[bytes] = deque()
        self._held_bytes = 0
        self._owed_bytes = 0
        """Heard, and the guest has not been told that it may say as much again."""
        self._about: dict[str, Any] | None = None
        self._is_prepared = False
        self._answer: dict[str, Any] | None = None
        self._error: Exception | None = None
        self._sent_bytes = self._taken_bytes = 0
        self._news = asyncio.Event()
        self.is_applied = False
        """The guest was told, or is, to make it true."""

    @property
    def number(self) -> int:
        """Names it in its sandbox."""
        return self._number

    def take(self, kind: int, body: bytes) -> None:
        """A frame about it. Raises ValueError, and the like, for what no guest of ours says."""
        if kind == FrameType.FILE_BYTES:
            self._held_bytes += len(body)
            if self._held_bytes > 2 * WINDOW_BYTES:
                raise ValueError("more of a file than was asked for")
            self._arrived.append(body)
        elif kind == FrameType.FILE_STATE:
            self._owed_bytes += len(body)
            fields = json.loads(body[1:])
            if body[:1] == b"I":
                self._about = _about(fields)
            elif body[:1] == b"P":
                self._is_prepared = True
            elif body[:1] == b"T":
                self._taken_bytes = min(self._sent_bytes, int(fields["bytes"]))
        else:
            fields = dict(json.loads(body))
            error = fields.get("error")
            if error is not None:
                half_made = bool(error.get("half_made", True))
                self._error = FileRefused(str(error["code"]), str(error["message"])[:1000], half_made=half_made)
            else:
                self._answer = _about(fields) if "kind" in fields else fields
            self._all.pop(self._number, None)
        self._news.set()

    def fail(self, error: Exception) -> None:
        """It is over."""
        self._all.pop(self._number, None)
        if self._answer is None and self._error is None:
            self._error = error
        self._news.set()

    @property
    def is_over(self) -> bool:
        """Whether it has ended, well or not."""
        return self._answer is not None or self._error is not None

    async def begun(self) -> dict[str, Any]:
        """What is read."""
        await self._until(lambda: self._about is not None)
        return self._about or {}

    async def receive(self) -> bytes:
        """The next bytes that are read; none at the end."""
        await self._until(lambda: bool(self._arrived) or self._answer is not None)
        if not self._arrived:
            return b""
        data = self._arrived.popleft()
        self._held_bytes -= len(data)
        self._owed_bytes += len(data) + 1
        await self._tell()
        return data

    async def send(self, data: bytes) -> None:
        """The next bytes of a change's body."""
        for start in range(0, len(data), PIECE_BYTES):
            piece = data[start : start + PIECE_BYTES]
            await self._until(lambda: self._sent_bytes - self._taken_bytes < WINDOW_BYTES)
            self._sent_bytes += len(piece)
            if frames.HOST_MARKER in piece:
                body = bytes([frames.FILE_BASE64]) + base64.b64encode(piece)
            else:
                body = b"\0" + piece
            await self._send(FrameType.FILE_DATA, self._number, body)
            await self._tell()

    async def prepared(self) -> None:
        """End the body, and wait until the change only needs to be made true."""
        await self._send(FrameType.FILE_DATA, self._number, bytes([frames.FILE_END]))
        await self._until(lambda: self._is_prepared)

    async def ended(self) -> dict[str, Any]:
        """Wait for the end; what it answers."""
        await self._until(lambda: self._answer is not None)
        return self._answer or {}

    async def close(self) -> None:
        """Give it up if it has not ended."""
        if self.is_over or self.is_applied:
            return
        self.fail(FileRefused("file_failed", "It was given up."))
        try:
            await self._send(FrameType.FILE_DATA, self._number, bytes([frames.FILE_CANCEL]))
        except SandboxError:
            return  # nothing of it is left

    async def _tell(self) -> None:
        if self._owed_bytes >= TOLD_AT_BYTES and not self.is_over:
            owed, self._owed_bytes = self._owed_bytes, 0
            await self._send(FrameType.FILE_MORE, self._number, json.dumps(owed).encode())

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for the guest. An error comes behind all that it said before."""
        while not condition():
            if self._error is not None:
                raise self._error
            if self._answer is not None:
                raise SandboxError("the guest ended work on files before it was done")
            self._news.clear()
            try:
                async with asyncio.timeout(STALL_SECONDS + 5):
                    await self._news.wait()
            except TimeoutError:
                raise FileRefused("file_failed", f"Nothing happened for {STALL_SECONDS:g} s.") from None


def _about(fields: dict[str, Any]) -> dict[str, Any]:
    """What the guest says of a file, which clients are told in headers. Raises ValueError, and the like."""
    about: dict[str, Any] = {name: int(fields[name]) for name in ("size", "mode", "modified_ns")}
    about |= {name: int(fields[name]) for name in ("start", "stop") if name in fields}
    if any(value >= 1 << 63 or (value < 0 and name != "modified_ns") for name, value in about.items()):
        raise ValueError("a size that is none")
    about |= {"kind": str(fields["kind"]), "tag": str(fields["tag"])}
    if about["kind"] not in KINDS.values() or not TAG.fullmatch(about["tag"]):
        raise ValueError("a file of no kind")
    if "sha256" in fields:
        about["sha256"] = str(fields["sha256"])
        if not SHA256.fullmatch(about["sha256"]):
            raise ValueError("a digest that is none")
    return about
