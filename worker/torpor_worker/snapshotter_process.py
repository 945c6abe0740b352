"""The worker's end of a snapshotter process."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import structlog

from torpor_snapshotter.store_url import locate
from torpor_worker.snapshots import DescribedRuntime, Parent, SnapshotterError, Stored

log = structlog.get_logger(__name__)

PROGRAM: Final = (sys.executable, "-P", "-m", "torpor_snapshotter")

_LONGEST_LINE_BYTES: Final = 4 << 20
_START_SECONDS: Final = 30.0
_SHORT_SECONDS: Final = 60.0
_COPY_SECONDS: Final = 6.0
_FETCH_SECONDS: Final = 600.0
_RUNTIME_SECONDS: Final = 24 * 3600.0
"""One is some 170 MB, and gives way to everything else."""
_SLOWEST_BYTES_PER_SECOND: Final = 4 << 20
_CANCEL_SECONDS: Final = 10.0
_CLOSE_SECONDS: Final = 60.0
_FIRST_BACK_OFF_SECONDS: Final = 0.1
_LONGEST_BACK_OFF_SECONDS: Final = 5.0


@dataclass(eq=False, slots=True)
class _Request:
    """A request in hand: parts of a list that came already, and the last message about it."""

    last: asyncio.Future[dict[str, Any]]
    parts: list[str] = field(default_factory=list)
    progress: Callable[[float], None] | None = None


class SnapshotterProcess:
    """A `Snapshotter` in a process of its own, started again when it dies.

    Requests in hand at its death fail with a retryable `SnapshotterError`; those that come while it is away wait for
    it. Use it as an asynchronous context, or call `start` and `close`.
    """

    def __init__(
        self,
        store_url: str,
        keys_url: str,
        program: Sequence[str] = PROGRAM,
        *,
        cache_folder: Path | None = None,
        cache_bytes: int = 0,
    ) -> None:
        """Machines' keys are at `keys_url`, and never here. `program` is started with the flags of a snapshotter.

        What is read of a store elsewhere is kept in `cache_folder`, at most `cache_bytes` of it.

        Raises `torpor_snapshotter.store_url.BadStoreUrl`.
        """
        locate(store_url)
        self._program = program
        self._store_url = store_url
        self._keys_url = keys_url
        self._cache_folder = cache_folder
        self._cache_bytes = cache_bytes
        self._numbers = itertools.count(1)
        self._requests: dict[int, _Request] = {}
        self._stores_in_hand: dict[object, int] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._up = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._keeper: asyncio.Task[None] | None = None
        self._closing = False

    @property
    def process_id(self) -> int | None:
        """The process that answers now, None while there is none."""
        return self._process.pid if self._process and self._writer else None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Start the process. Raises `SnapshotterError` if it does not come up."""
        self._keeper = asyncio.create_task(self._keep_running(), name="snapshotter process")
        try:
            await self._wait_until_up()
        except BaseException:
            await self.close()
            raise

    async def check(self) -> None:
        """Write, read and delete an object; removes what crashed writers left. Raises `SnapshotterError`."""
        await self._ask({"do": "check"}, _SHORT_SECONDS)

    async def claim(self, owner: str, *, has_objects: bool) -> None:
        """See `torpor_snapshotter.owner.claim`. Raises `SnapshotterError`."""
        await self._ask({"do": "claim", "owner": owner, "has_objects": has_objects}, _SHORT_SECONDS)

    async def store(self, image: Path, key: str, fields: dict[str, Any], parent: Parent | None = None) -> Stored:
        """Put what the parent lacks into a pack, and a manifest under `key`; verify both."""
        ticket = object()
        self._stores_in_hand[ticket] = await asyncio.to_thread(_folder_bytes, image)
        try:
            # They are done one after the other, so this one waits for those in hand.
            seconds = sum(_SHORT_SECONDS + size / _SLOWEST_BYTES_PER_SECOND for size in self._stores_in_hand.values())
            request = {"do": "store", "image": str(image), "key": key, "fields": fields, "parent": _described(parent)}
            answer = await self._ask(request, seconds)
        finally:
            del self._stores_in_hand[ticket]
        return _stored(answer)

    async def derive(
        self, source: str, sha256: str, keys: Mapping[str, str], fields: dict[str, Any]
    ) -> dict[str, Stored]:
        """Put a manifest for each machine under its key, all with `fields`, that needs the same packs as `source`."""
        request = {"do": "derive", "source": source, "sha256": sha256, "keys": dict(keys), "fields": fields}
        answers = await self._ask(request, _SHORT_SECONDS + _COPY_SECONDS * len(keys))
        return dict(zip(keys, map(_stored, answers), strict=True))

    async def fetch(self, key: str, sha256: str, into: Path, like: Parent | None = None) -> float:
        """Bring the image back into the new folder `into`; how long that took behind the last read, in seconds."""
        request = {"do": "fetch", "key": key, "sha256": sha256, "into": str(into), "like": _described(like)}
        return float((await self._ask(request, _FETCH_SECONDS))["assemble_seconds"])

    async def describe_runtime(self, folder: Path) -> DescribedRuntime:
        """What the store would have of an installed runtime."""
        answer = await self._ask({"do": "describe_runtime", "folder": str(folder)}, _FETCH_SECONDS)
        return DescribedRuntime(answer["key"], answer["sha256"], tuple(answer["keys"]), answer["description"])

    async def keep_runtime(self, folder: Path, described: DescribedRuntime) -> None:
        """Put what the store lacks of an installed runtime, whenever nothing else is asked for."""
        request = {"do": "keep_runtime", "folder": str(folder), "description": described.description}
        await self._ask(request, _RUNTIME_SECONDS)

    async def bring_runtime(self, key: str, sha256: str, data_dir: Path, progress: Callable[[float], None]) -> Path:
        """Install a runtime from the store; its folder. `progress` is told how much of it is there."""
        request = {"do": "bring_runtime", "key": key, "sha256": sha256, "data_dir": str(data_dir)}
        answer = await self._ask(request, _RUNTIME_SECONDS, progress)
        return Path(answer["folder"])

    async def destroy_key(self, machine: str) -> None:
        """Make what is stored of a machine unreadable for ever; no error if that was done."""
        await self._ask({"do": "destroy_key", "machine": machine}, _SHORT_SECONDS)

    async def delete(self, key: str) -> None:
        """Delete an object; no error if it is not there."""
        await self._ask({"do": "delete", "key": key}, _SHORT_SECONDS)

    async def list(self) -> list[str]:
        """Every key in the store."""
        keys: list[str] = await self._ask({"do": "list"}, _SHORT_SECONDS)
        return keys

    async def close(self) -> None:
        """End the process, after the work in hand."""
        self._closing = True
        if self._keeper is None:
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), _CLOSE_SECONDS)
        self._keeper.cancel()
        await asyncio.wait({self._keeper})
        self._keeper = None
        self._up.set()  # whoever waits for it looks, and finds it closed

    async def _ask(
        self, request: dict[str, Any], seconds: float, progress: Callable[[float], None] | None = None
    ) -> Any:
        await self._wait_until_up()
        number = next(self._numbers)
        pending = _Request(asyncio.get_running_loop().create_future(), progress=progress)
        self._requests[number] = pending
        self._idle.clear()
        try:
            self._send({"id": number, **request})
            await asyncio.wait({pending.last}, timeout=seconds)
            if not pending.last.done():
                await self._cancel(number, pending)
                raise SnapshotterError(f"The snapshotter could not {request['do']} within {seconds:.0f} s.")
        except asyncio.CancelledError:
            await self._cancel(number, pending)
            raise
        finally:
            del self._requests[number]
            if not self._requests:
                self._idle.set()
        message = pending.last.result()
        if error := message.get("error"):
            raise SnapshotterError(error["message"], retryable=error["retryable"])
        return pending.parts if request["do"] == "list" else message["answer"]

    async def _cancel(self, number: int, pending: _Request) -> None:
        """End a request, so that nothing of it goes on after this."""
        process = self._process
        self._send({"id": number, "do": "cancel"})
        await asyncio.wait({pending.last}, timeout=_CANCEL_SECONDS)
        if not pending.last.done() and process is not None:
            with suppress(ProcessLookupError):
                process.kill()

    def _send(self, message: dict[str, Any]) -> None:
        # A request is short, and few are in hand: nothing is gained by waiting until it is written.
        if self._writer is not None:
            self._writer.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    async def _wait_until_up(self) -> None:
        deadline = asyncio.get_running_loop().time() + _START_SECONDS
        while not self._up.is_set():
            if self._closing or self._keeper is None:
                break
            try:
                async with asyncio.timeout_at(deadline):
                    await self._up.wait()
            except TimeoutError:
                raise SnapshotterError("The snapshotter process does not come up; its reason is in the log.") from None
        if self._closing or self._keeper is None:
            raise SnapshotterError("The snapshotter is closed.", retryable=False)

    async def _keep_running(self) -> None:
        back_off_seconds = _FIRST_BACK_OFF_SECONDS
        while True:
            try:
                answered = await self._run_once()
            except Exception:  # no memory or file descriptor for a process: there may be one for the next
                log.exception("The snapshotter process failed; it is started again.", action="snapshotter")
                answered = False
            back_off_seconds = _FIRST_BACK_OFF_SECONDS if answered else back_off_seconds
            await asyncio.sleep(back_off_seconds)
            back_off_seconds = min(2 * back_off_seconds, _LONGEST_BACK_OFF_SECONDS)

    async def _run_once(self) -> bool:
        """Start a process and hear it out; whether it answered any request."""
        process: asyncio.subprocess.Process | None = None
        answered = False
        ours, theirs = socket.socketpair()
        reader, self._writer = await asyncio.open_unix_connection(sock=ours, limit=_LONGEST_LINE_BYTES)
        try:
            with theirs:
                process = self._process = await asyncio.create_subprocess_exec(
                    *self._program,
                    *self._flags(theirs.fileno()),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # a terminal's Ctrl-C is the parent's business
                )
            while line := await _read_line(reader):
                message = json.loads(line)
                if "ready" in message:
                    self._up.set()
                elif pending := self._requests.get(message["id"]):
                    answered = True
                    _note(pending, message)
        finally:
            self._up.clear()
            self._writer.close()
            self._writer = None
            for pending in self._requests.values():
                _note(pending, {"error": {"message": "The snapshotter process ended.", "retryable": True}})
            if process is not None:
                await _wait_or_kill(process)
        return answered

    def _flags(self, socket_fd: int) -> Sequence[str]:
        flags = {
            "--socket-fd": socket_fd,
            "--parent-pid": os.getpid(),
            "--store-url": self._store_url,
            "--keys-url": self._keys_url,
        }
        if self._cache_folder is not None:
            flags |= {"--cache-folder": self._cache_folder, "--cache-bytes": self._cache_bytes}
        return [f"{flag}={value}" for flag, value in flags.items()]


def _stored(answer: dict[str, Any]) -> Stored:
    return Stored(
        manifest_key=answer["key"],
        manifest_sha256=answer["sha256"],
        stored_bytes=answer["stored_bytes"],
        image_bytes=answer["image_bytes"],
        packs=tuple(answer["packs"]),
    )


def _described(parent: Parent | None) -> dict[str, Any] | None:
    if parent is None:
        return None
    image = None if parent.image is None else str(parent.image)
    return {"key": parent.manifest_key, "sha256": parent.manifest_sha256, "image": image}


def _note(pending: _Request, message: dict[str, Any]) -> None:
    if "part" in message:
        pending.parts += message["part"]
    elif "fraction" in message:
        if pending.progress is not None and message["fraction"] is not None:
            pending.progress(message["fraction"])
    elif not pending.last.done():
        pending.last.set_result(message)


async def _read_line(reader: asyncio.StreamReader) -> bytes:
    """The next line; nothing at the end, or if the process died in the middle of one."""
    with suppress(ConnectionError):
        line = await reader.readline()
        return line if line.endswith(b"\n") else b""
    return b""


async def _wait_or_kill(process: asyncio.subprocess.Process) -> None:
    try:
        await asyncio.wait_for(process.wait(), _CANCEL_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()


def _folder_bytes(folder: Path) -> int:
    try:
        return sum(file.stat().st_size for file in folder.iterdir())
    except OSError as error:
        raise SnapshotterError(f"There is no image to store: {error}.", retryable=False) from error
