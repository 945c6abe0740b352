"""E2B's `sandbox.files` on a machine."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, overload

from .._errors import FileNotFound
from .._file_models import FileInfo
from .._machine import Machine
from .e2b_errors import in_their_words
from .e2b_file_models import (
    TYPES,
    EntryInfo,
    WriteData,
    WriteEntry,
    WriteInfo,
    bytes_of,
    check_depth,
    check_format,
    check_is_folder,
    check_metadata,
    check_moved,
    entry_of,
    move,
    read_as,
    written,
)


class Filesystem:
    """Files of one sandbox. `user`, `request_timeout`, `gzip` and `use_octet_stream` mean nothing here."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._files = machine.files

    @overload
    def read(
        self,
        path: str,
        format: Literal["text"] = "text",
        user: str | None = None,
        request_timeout: float | None = None,
        gzip: bool = False,
        stream_idle_timeout: float | None = None,
    ) -> str: ...

    @overload
    def read(
        self,
        path: str,
        format: Literal["bytes"],
        user: str | None = None,
        request_timeout: float | None = None,
        gzip: bool = False,
        stream_idle_timeout: float | None = None,
    ) -> bytearray: ...

    def read(
        self,
        path: str,
        format: Literal["text", "bytes"] = "text",
        user: str | None = None,
        request_timeout: float | None = None,
        gzip: bool = False,
        stream_idle_timeout: float | None = None,
    ) -> str | bytearray:
        """What is in a file. Raises `FileNotFoundException`, and `InvalidArgumentException` for a folder."""
        check_format(format)
        with in_their_words():
            return read_as(self._files.read(path), format)

    def write(
        self,
        path: str,
        data: WriteData,
        user: str | None = None,
        request_timeout: float | None = None,
        gzip: bool = False,
        use_octet_stream: bool | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> WriteInfo:
        """Write a file, and the folders on the way to it. Raises `InvalidArgumentException`."""
        (info,) = self.write_files([WriteEntry(path=path, data=data)], metadata=metadata)
        return info

    def write_files(
        self,
        files: Sequence[WriteEntry],
        user: str | None = None,
        request_timeout: float | None = None,
        gzip: bool = False,
        use_octet_stream: bool | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> list[WriteInfo]:
        """Write several files, one after the other. Raises as `write` does; those before stay then."""
        check_metadata(metadata)
        with in_their_words():
            for file in files:
                self._files.write(file["path"], bytes_of(file["data"]))
        return [written(file["path"]) for file in files]

    def list(
        self, path: str, depth: int | None = 1, user: str | None = None, request_timeout: float | None = None
    ) -> list[EntryInfo]:
        """What is in a folder, and with a greater `depth` in those below it. Raises `FileNotFoundException`."""
        check_depth(depth)
        with in_their_words():
            return [entry_of(file) for file in self._below(path, depth or 1) if file.kind in TYPES]

    def _below(self, path: str, depth: int) -> Iterator[FileInfo]:
        for file in self._files.list(path):
            yield file
            if depth > 1 and file.kind == "folder":
                yield from self._below(file.path, depth - 1)

    def exists(self, path: str, user: str | None = None, request_timeout: float | None = None) -> bool:
        """Whether something is there."""
        with in_their_words():
            return self._files.exists(path)

    def get_info(self, path: str, user: str | None = None, request_timeout: float | None = None) -> EntryInfo:
        """What is there, behind links. Raises `FileNotFoundException`."""
        with in_their_words():
            return entry_of(self._files.info(path))

    def remove(self, path: str, user: str | None = None, request_timeout: float | None = None) -> None:
        """Remove a file, or a folder with all that is in it; nothing if there is none."""
        with in_their_words():
            try:
                self._files.remove(path, recursive=True)
            except FileNotFound:
                return

    def rename(
        self, old_path: str, new_path: str, user: str | None = None, request_timeout: float | None = None
    ) -> EntryInfo:
        """Move something, with folders on the way made; what is there is replaced. Raises `FileNotFoundException`."""
        with in_their_words():
            self._files.info(old_path)
            check_moved(self._machine.commands.run(move(old_path, new_path), notices=False))
            return entry_of(self._files.info(new_path))

    def make_dir(self, path: str, user: str | None = None, request_timeout: float | None = None) -> bool:
        """Make a folder, and those on the way to it; False if it is there. Raises `InvalidArgumentException`."""
        with in_their_words():
            try:
                there = self._files.info(path)
            except FileNotFound:
                with tempfile.TemporaryDirectory() as nothing:
                    self._files.upload(nothing, path)
                return True
        check_is_folder(path, there)
        return False
