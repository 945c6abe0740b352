"""Files of a sandbox that is none: a dictionary, with what a test needs of folders and errors."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import posixpath
import tarfile
from collections.abc import Awaitable, Callable
from typing import Any

from torpor_worker.files import Archive, Change, FileRefused, FileWork, List, Look, Read
from torpor_worker.sandbox import PackagesWanted, SandboxDied

HOME = "/home/user"
PIECE_BYTES = 48 << 10

Files = dict[str, bytes]
"""Content by absolute path."""


class FakeTransfer:
    """Implements `FileTransfer` over such files."""

    def __init__(
        self,
        number: int,
        work: FileWork,
        files: Files,
        alive: Callable[[], None],
        preparing: Callable[[], Awaitable[None]],
    ) -> None:
        self._preparing = preparing
        self._number = number
        self._work = work
        self._files = files
        self._alive = alive
        self._body = bytearray()
        self._data: bytes | None = None
        self._place = 0
        self._applied = asyncio.Event()
        self.is_applied = False
        """It is to be made true, and is not given up any more."""
        self.error: Exception | None = None
        self.refuses: FileRefused | None = None
        """What becomes of it when it is made true."""
        self.path = posixpath.normpath(posixpath.join(HOME, work.path))

    @property
    def number(self) -> int:
        """See `FileTransfer`."""
        return self._number

    @property
    def is_over(self) -> bool:
        """See `FileTransfer`."""
        return self.error is not None

    async def begun(self) -> dict[str, Any]:
        """See `FileTransfer`."""
        about = self._look()
        match self._work:
            case Read(start=start, stop=stop, tag=tag):
                if about["kind"] == "folder":
                    raise FileRefused("is_a_folder", "Is a directory")
                if tag not in (None, about["tag"]):
                    raise FileRefused("file_changed", "it is not the same any more")
                size = about["size"]
                first = max(0, size + start) if start < 0 else start
                last = max(first, size if stop is None else min(stop, size))
                self._data = self._files[self.path][first:last]
                return about | {"start": first, "stop": last}
            case Archive():
                self._data = self._packed()
        return about

    async def receive(self) -> bytes:
        """See `FileTransfer`."""
        if self._data is None:
            if isinstance(self._work, List):
                self._data = self._listed(self._work)
            else:
                await self.begun()
        self._alive()
        start, self._place = self._place, self._place + PIECE_BYTES
        return (self._data or b"")[start : self._place]

    async def send(self, data: bytes) -> None:
        """See `FileTransfer`."""
        await asyncio.sleep(0)
        self._alive()
        self._body += data

    async def prepared(self) -> None:
        """See `FileTransfer`."""
        if not isinstance(self._work, Change):
            raise TypeError("it is no change")
        await self._preparing()
        self._alive()
        if self._work.work == "write":
            if self._inside():
                raise FileRefused("is_a_folder", "Is a directory")
        elif self._work.work == "remove":
            self._look()
            if self._inside() and not self._work.recursive:
                raise FileRefused("folder_not_empty", "Directory not empty")

    async def ended(self) -> dict[str, Any]:
        """See `FileTransfer`."""
        if isinstance(self._work, Look):
            sha256 = hashlib.sha256(self._files.get(self.path, b"")).hexdigest()
            return self._look() | ({"sha256": sha256} if self._work.digest else {})
        if isinstance(self._work, List):
            return {"more": len(self._names(self._work)) > self._work.limit}
        await self._applied.wait()
        if self.error is not None:
            raise self.error
        self._alive()
        return {}

    async def close(self) -> None:
        """See `FileTransfer`."""
        if not self.is_over and not self.is_applied:
            self.error = FileRefused("file_failed", "It was given up.")

    def apply(self) -> None:
        """Make the change true."""
        if not isinstance(self._work, Change):
            raise TypeError("it is no change")
        if self.refuses is not None:
            self.error = self.refuses
        elif self._work.work == "write":
            self._files[self.path] = bytes(self._body)
        elif self._work.work == "remove":
            for path in [*self._inside(), self.path]:
                self._files.pop(path, None)
        else:
            with tarfile.open(fileobj=io.BytesIO(self._body)) as tar:
                for member in tar:
                    if (file := tar.extractfile(member)) is not None:
                        self._files[posixpath.join(self.path, member.name)] = file.read()
        self._applied.set()

    def die(self, reason: str) -> None:
        """The sandbox is gone."""
        self.error = self.error or SandboxDied(reason)
        self._applied.set()

    def _look(self) -> dict[str, Any]:
        self._alive()
        content = self._files.get(self.path)
        if content is None and not self._inside() and self.path != HOME:
            raise FileRefused("file_not_found", "No such file or directory")
        return _about("folder" if content is None else "file", content or b"")

    def _inside(self) -> list[str]:
        return [path for path in self._files if path.startswith(self.path.rstrip("/") + "/")]

    def _names(self, work: List) -> list[str]:
        if self.path in self._files:
            raise FileRefused("not_a_folder", "Not a directory")
        self._look()
        names = {posixpath.relpath(path, self.path).split("/")[0] for path in self._inside()}
        return sorted(name for name in names if work.after is None or name > work.after)

    def _listed(self, work: List) -> bytes:
        lines = []
        for name in self._names(work)[: work.limit]:
            content = self._files.get(posixpath.join(self.path, name))
            lines.append(json.dumps({"name": name} | _about("folder" if content is None else "file", content or b"")))
        return "".join(line + "\n" for line in lines).encode()

    def _packed(self) -> bytes:
        body = io.BytesIO()
        with tarfile.open(fileobj=body, mode="w") as tar:
            for path in sorted(self._inside()):
                member = tarfile.TarInfo(posixpath.relpath(path, self.path))
                member.size = len(self._files[path])
                tar.addfile(member, io.BytesIO(self._files[path]))
        return body.getvalue()


def _about(kind: str, content: bytes) -> dict[str, Any]:
    tag = hashlib.sha256(content).hexdigest()[:16]
    return {"kind": kind, "size": len(content), "mode": 0o644, "modified_ns": 1_700_000_000_000_000_000, "tag": tag}


def package_ask(seq: int, wanted: str) -> tuple[PackagesWanted, str]:
    """What is asked for a package, and the path at which its archive is awaited."""
    name = f"{seq}-{0:016}-0"
    request = {"requirements": [wanted], "installed": {}, "python": "3.13.5", "libc": [2, 41], "architecture": "x86_64"}
    return PackagesWanted(1, seq, name, request), f"/home/user/.cache/torpor/{name}.tar"
