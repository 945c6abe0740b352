"""The asynchronous twin of `e2b_files`."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from typing import Literal, TypedDict, overload

from .._async_machine import AsyncMachine
from .._errors import FileNotFound
from .._file_models import FileInfo
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

AsyncWriteData = WriteData | AsyncIterable[bytes]


class AsyncWriteEntry(TypedDict):
    """A file to write."""

    path: str
    data: AsyncWriteData


class AsyncFilesystem:
    """Files of one sandbox, as `Filesystem`, awaited. What is written may come from an asynchronous iterator too."""

    def __init__(self, machine: AsyncMachine) -> None:
        self._machine = machine
        self._files = machine.files

    @overload
    async def read(
        self,
        path: str,
        format: Literal["text"] = "text",
        user: str | None = None,
        request_timeout: float | None = None,
        gzip: bool = False,
        stream_idle_timeout: float | None = None,
    ) -> str: ...

    @overload
    async def read(
        self,
        path: str,
        format: Literal["bytes"],
        user: str | None = None,
        request_timeout: float | None = None,
        gzip: bool = False,
        stream_idle_timeout: float | None = None,
    ) -> bytearray: ...

    async def read(
        self,
        path: str,
        format: Literal["text", "bytes"] = "text",
        user: str | None = None,
        request_timeout: float | None = None,
        gzip: bool = False,
        stream_idle_timeout: float | None = None,
    ) -> str | bytearray:
        """See `Filesystem`."""
        check_format(format)
        with in_their_words():
            return read_as(await self._files.read(path), format)

    async def write(
        self,
        path: str,
        data: AsyncWriteData,
        user: str | None = None,
        request_timeout: float | None = None,
        gzip: bool = False,
        use_octet_stream: bool | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> WriteInfo:
        """See `Filesystem`."""
        (info,) = await self.write_files([AsyncWriteEntry(path=path, data=data)], metadata=metadata)
        return info

    async def write_files(
        self,
        files: Sequence[WriteEntry | AsyncWriteEntry],
        user: str | None = None,
        request_timeout: float | None = None,
        gzip: bool = False,
        use_octet_stream: bool | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> list[WriteInfo]:
        """See `Filesystem`."""
        check_metadata(metadata)
        with in_their_words():
            for file in files:
                await self._files.write(file["path"], await _collected(file["data"]))
        return [written(file["path"]) for file in files]

    async def list(
        self, path: str, depth: int | None = 1, user: str | None = None, request_timeout: float | None = None
    ) -> list[EntryInfo]:
        """See `Filesystem`."""
        check_depth(depth)
        with in_their_words():
            return [entry_of(file) async for file in self._below(path, depth or 1) if file.kind in TYPES]

    async def _below(self, path: str, depth: int) -> AsyncIterator[FileInfo]:
        for file in await self._files.list(path):
            yield file
            if depth > 1 and file.kind == "folder":
                async for below in self._below(file.path, depth - 1):
                    yield below

    async def exists(self, path: str, user: str | None = None, request_timeout: float | None = None) -> bool:
        """See `Filesystem`."""
        with in_their_words():
            return await self._files.exists(path)

    async def get_info(self, path: str, user: str | None = None, request_timeout: float | None = None) -> EntryInfo:
        """See `Filesystem`."""
        with in_their_words():
            return entry_of(await self._files.info(path))

    async def remove(self, path: str, user: str | None = None, request_timeout: float | None = None) -> None:
        """See `Filesystem`."""
        with in_their_words():
            try:
                await self._files.remove(path, recursive=True)
            except FileNotFound:
                return

    async def rename(
        self, old_path: str, new_path: str, user: str | None = None, request_timeout: float | None = None
    ) -> EntryInfo:
        """See `Filesystem`."""
        with in_their_words():
            await self._files.info(old_path)
            check_moved(await self._machine.commands.run(move(old_path, new_path), notices=False))
            return entry_of(await self._files.info(new_path))

    async def make_dir(self, path: str, user: str | None = None, request_timeout: float | None = None) -> bool:
        """See `Filesystem`."""
        with in_their_words():
            try:
                there = await self._files.info(path)
            except FileNotFound:
                with tempfile.TemporaryDirectory() as nothing:
                    await self._files.upload(nothing, path)
                return True
        check_is_folder(path, there)
        return False


async def _collected(data: AsyncWriteData) -> bytes:
    if isinstance(data, AsyncIterable):
        return bytes_of([piece async for piece in data])
    return bytes_of(data)
