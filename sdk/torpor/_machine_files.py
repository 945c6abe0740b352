"""Files in a machine, both ways."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path as LocalPath
from typing import BinaryIO, cast

from . import _file_calls, _http
from ._connection import Connection
from ._errors import FileNotFound, IsAFolder, NotAFolder, ProtocolError
from ._file_calls import Path, text_of
from ._file_models import FileInfo, FileList, Written, listed, looked_at
from ._transfer import Bytes, Counted, Download, LocalFile, Progress, Source, source_of, unpack

SPOOLED_BYTES = 8 << 20


class Files:
    """The files of a machine: `machine.files`.

    Paths begin in the machine's home folder, or are absolute; they cannot leave the machine. A write is there as a
    whole or not at all, and outlives every crash of the server once it has returned. All of it works while code runs.

    >>> machine.files.write("numbers.txt", "3 5")
    >>> machine.run("sum(map(int, open('numbers.txt').read().split()))").value
    '8'
    >>> machine.files.read_text("numbers.txt")
    '3 5'
    """

    def __init__(self, connection: Connection, machine_name: str) -> None:
        self._connection = connection
        self._machine_name = machine_name

    def read(self, path: Path, *, start: int = 0, length: int | None = None) -> bytes:
        r"""A file's bytes. Raises `FileNotFound`, `IsAFolder`, `NotAFile`.

        Args:
            path: Where.
            start: The first byte to read. Raises `RangeNotSatisfiable` if the file ends before it.
            length: How many at most; by default all that there are.

        >>> machine.run("import matplotlib.pyplot as plt; plt.savefig('plot.png')").ok
        True
        >>> machine.files.read("plot.png", length=4)
        b'\x89PNG'
        """
        into = io.BytesIO()
        self._connection.fetch(Download(self._machine_name, text_of(path), into, start=start, length=length))
        return into.getvalue()

    def read_text(self, path: Path, encoding: str = "utf-8") -> str:
        r"""A file's text.

        >>> machine.files.read_text("/etc/hostname")
        'torpor\n'
        """
        return self.read(path).decode(encoding)

    def write(self, path: Path, data: str | bytes, *, mode: int | None = None) -> None:
        r"""Write a file, and the folders on the way to it. Text is written as UTF-8.

        Args:
            path: Where.
            data: All that it is to have.
            mode: Its permissions; by default those of the file that it replaces, or 0o644.

        >>> machine.files.write("data/in.csv", "a,b\n1,2\n")
        >>> machine.run("open('data/in.csv').read()").value
        "'a,b\\n1,2\\n'"

        Raises `DiskFull`, `IsAFolder`, `FilePermissionDenied`.
        """
        source = Bytes(data.encode() if isinstance(data, str) else data)
        call = _file_calls.write(self._machine_name, text_of(path), mode)
        source.check(_http.parsed(self._connection.upload(call, source), Written).sha256)

    def upload(self, local: str | os.PathLike[str], remote: Path, *, progress: Progress | None = None) -> None:
        """Copy a file of this computer's, or a folder with all that is in it, into the machine.

        Args:
            local: What to copy.
            remote: What it is to be there. A folder's files join those that are there.
            progress: Called with the bytes that were sent, and all that there are (None: not known).

        >>> size = Path("model.bin").write_bytes(bytes(1000))
        >>> machine.files.upload("model.bin", "models/model.bin", progress=lambda done, total: print(done, total))
        0 1000
        1000 1000
        """
        source: Source = source_of(LocalPath(local), progress)
        if isinstance(source, LocalFile):
            call = _file_calls.write(self._machine_name, text_of(remote), source.mode)
        else:
            call = _file_calls.unpack(self._machine_name, text_of(remote))
        source.check(_http.parsed(self._connection.upload(call, source), Written).sha256)

    def download(self, remote: Path, local: str | os.PathLike[str], *, progress: Progress | None = None) -> None:
        """Copy a file, or a folder with all that is in it, from the machine to this computer.

        A file is compared with the one in the machine by its digest, and takes the place of what was there when it is
        whole. What breaks on the way goes on where it was.

        Args:
            remote: What to copy.
            local: What it is to be here.
            progress: Called with the bytes that have come, and all that there are (None: not known).

        >>> machine.files.write("results/loss.txt", "0.5")
        >>> machine.files.download("results/loss.txt", "loss-of-today.txt")
        >>> Path("loss-of-today.txt").read_text()
        '0.5'

        Raises `FileNotFound`, and `TorporError` for a folder on a Python that cannot unpack one safely: one older than
        3.10.12 or 3.11.4.
        """
        path, target = text_of(remote), LocalPath(local)
        if self.info(path).kind == "folder":
            with tempfile.SpooledTemporaryFile(SPOOLED_BYTES) as file:
                into = cast(BinaryIO, Counted(cast(BinaryIO, file), progress))
                self._connection.download(_file_calls.archive(self._machine_name, path), into)
                file.seek(0)
                unpack(cast(BinaryIO, file), target)
            return
        part = target.with_name(f".{target.name}.part")
        try:
            with part.open("w+b") as file:
                state = Download(self._machine_name, path, file, progress)
                self._connection.fetch(state)
            self._compare(path, state)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    def list(self, path: Path = "", *, limit: int | None = None) -> list[FileInfo]:
        r"""What is in a folder, by name; with `limit`, so many at most. Links are not followed.

        >>> machine.files.write("data/in.csv", "a,b\n1,2\n")
        >>> [file.name for file in machine.files.list("data")]
        ['in.csv']

        Raises `FileNotFound`, `NotAFolder`.
        """
        found: list[FileInfo] = []
        cursor: str | None = None
        while True:
            call = _file_calls.entries(self._machine_name, text_of(path), cursor)
            page = _http.parsed(self._connection.send(call), FileList)
            found += map(listed, page.entries)
            cursor = page.next_cursor
            if cursor is None or (limit is not None and len(found) >= limit):
                return found[:limit]

    def info(self, path: Path, *, digest: bool = False) -> FileInfo:
        """What is at a path, behind links; with `digest`, the SHA-256 of a file's bytes too. Raises `FileNotFound`.

        >>> machine.files.write("a.txt", "3")
        >>> machine.files.info("a.txt", digest=True).sha256[:8]
        '4e074085'
        """
        text = text_of(path)
        response = self._connection.send(_file_calls.look(self._machine_name, text, digest=digest))
        return looked_at(text, response.headers)

    def exists(self, path: Path) -> bool:
        """Whether there is anything at a path.

        >>> machine.files.exists("nowhere.txt")
        False
        """
        try:
            self.info(path)
        except (FileNotFound, NotAFolder):
            return False
        return True

    def remove(self, path: Path, *, recursive: bool = False) -> None:
        """Remove a file, a link or a folder; a full folder only with `recursive`, else `FolderNotEmpty` is raised.

        >>> machine.files.write("old/notes.txt", "")
        >>> machine.files.remove("old")
        Traceback (most recent call last):
        torpor.FolderNotEmpty: ...
        >>> machine.files.remove("old", recursive=True)
        """
        self._connection.send(_file_calls.remove(self._machine_name, text_of(path), recursive=recursive))

    def _compare(self, path: str, state: Download) -> None:
        try:
            now = self.info(path, digest=True)
        except (FileNotFound, IsAFolder):
            return  # it has gone since: there is nothing to compare with
        if now.tag == state.tag and now.sha256 != state.sha256:
            raise ProtocolError("What has come is not what the machine has.", hint="Download it again.")

    def __repr__(self) -> str:
        return f"Files({self._machine_name!r})"
