"""Tools that read, write, change and list the machine's files."""

from __future__ import annotations

import codecs
import mimetypes
from base64 import b64encode
from datetime import datetime
from typing import Annotated
from urllib.parse import quote

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import (
    Annotations,
    BlobResourceContents,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    TextContent,
    ToolAnnotations,
)
from pydantic import BaseModel, Field

from ..._async_machine import AsyncMachine
from ..._errors import FileNotFound, IsAFolder, NotAFolder
from ..._file_models import FileInfo
from .answers import asked, structured
from .sources import MachineArgument, NewMachineArgument, Source

PIECE_CHARACTERS = 16_000
_PIECE_BYTES = 4 * PIECE_CHARACTERS
PICTURE_BYTES = 3 << 20
"""Programs take a few MB in one answer, and base64 makes a third more of it."""
ENCLOSED_BYTES = 64 << 10
EDITED_BYTES = 4 << 20
LIST_LENGTH = 200

PathArgument = Annotated[str, Field(description="From the home folder, or absolute.")]


class FileRow(BaseModel):
    """One entry of a folder."""

    name: str
    kind: str = Field(description="`file`, `folder`, `link`, `fifo`, `socket` or `device`.")
    size: int = Field(description="Bytes.")
    modified: datetime
    target: str | None = Field(description="Where a link leads.")


class Folder(BaseModel):
    """What is in a folder, by name."""

    entries: list[FileRow]
    more: bool = Field(description="Whether some are left out.")


def add_files(server: MCPServer, source: Source) -> None:
    """Add the tools."""

    @server.tool(
        title="Read file",
        description="Read a file of the machine's: text as text, a PNG, JPEG, GIF or WebP as a picture. Of a long text "
        "a piece is given, and where it goes on.",
        annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False),
    )
    async def read_file(
        context: Context,
        path: PathArgument,
        start: Annotated[
            int, Field(description="The first byte of a text to read; a negative number counts from the end.")
        ] = 0,
        machine: MachineArgument = None,
    ) -> CallToolResult:
        content = await asked(lambda: _content(source.machine(context, machine), path, start))
        return CallToolResult(content=content)

    @server.tool(
        title="Write file",
        description="Write a text file, and the folders on the way to it. What it had before is replaced.",
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
        ),
        structured_output=False,
    )
    async def write_file(
        context: Context,
        path: PathArgument,
        content: Annotated[str, Field(description="All that it is to have.")],
        machine: NewMachineArgument = None,
    ) -> str:
        data = content.encode()

        async def work() -> None:
            try:
                await source.machine(context, machine, create=True).files.write(path, data)
            except IsAFolder as error:
                raise ToolError(f"{path} is a folder: name a file in it.") from error

        await asked(work)
        return f"{path} has {len(data)} bytes now."

    @server.tool(
        title="Edit file",
        description="Replace a piece of a text file; the rest of it stays.",
        annotations=ToolAnnotations(read_only_hint=False, destructive_hint=True, open_world_hint=False),
        structured_output=False,
    )
    async def edit_file(
        context: Context,
        path: PathArgument,
        old: Annotated[
            str,
            Field(
                min_length=1, description="What is there, to the letter, with enough around it to be there only once."
            ),
        ],
        new: Annotated[str, Field(description="What is there instead.")],
        everywhere: Annotated[bool, Field(description="Replace it wherever it is.")] = False,
        machine: MachineArgument = None,
    ) -> str:
        count = await asked(lambda: _edit(source.machine(context, machine), path, old, new, everywhere))
        return f"It is replaced in {path}{'' if count == 1 else f', {count} times'}."

    @server.tool(
        title="List files",
        description="What is in a folder of the machine's: names, kinds, sizes, when changed. `run_command` finds, "
        "moves and removes files.",
        annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False),
    )
    async def list_files(
        context: Context,
        folder: Annotated[str, Field(description="The home folder by default.")] = "",
        machine: MachineArgument = None,
    ) -> Annotated[CallToolResult, Folder]:
        async def work() -> list[FileInfo]:
            try:
                return await source.machine(context, machine).files.list(folder, limit=LIST_LENGTH + 1)
            except NotAFolder as error:
                raise ToolError(f"{error.message} `read_file` reads a file.") from error
            except FileNotFound as error:
                raise ToolError(f"{error.message} Without `folder` the home folder is listed.") from error

        found = await asked(work)
        rows = [_row(info) for info in found[:LIST_LENGTH]]
        lines = [_line(row) for row in rows]
        more = len(found) > LIST_LENGTH
        if more:
            lines.append("[and more: `run_command` finds those that you look for]")
        return structured("\n".join(lines) or "(nothing)", Folder(entries=rows, more=more))


async def _content(machine: AsyncMachine, path: str, start: int) -> list[ContentBlock]:
    info = await _found(machine, path)
    first = max(0, info.size + start) if start < 0 else start
    if first and first >= info.size:
        raise ToolError(f"{path} has only {info.size} bytes.")
    piece = await machine.files.read(path, start=first, length=_PIECE_BYTES)
    if not piece:
        return [TextContent(text="(the file is empty)")]
    text = _text(piece, first, info.size)
    if text is not None:
        return [TextContent(text=text)]
    name = f"{path} ({info.size} bytes)"
    if (mime_type := _picture(piece)) is not None:
        if info.size > PICTURE_BYTES:
            raise ToolError(f"The picture {name} is too large for an answer: make a smaller one with `run_python`.")
        picture = await machine.files.read(path)
        return [ImageContent(data=b64encode(picture).decode(), mime_type=mime_type)]
    said = TextContent(text=f"{name} is no text in UTF-8: `run_python` can look into it.")
    if info.size > ENCLOSED_BYTES:
        return [said]
    whole = BlobResourceContents(
        uri=f"torpor://machine/{machine.name}/file/{quote(path)}",
        mime_type=mimetypes.guess_type(path)[0] or "application/octet-stream",
        blob=b64encode(await machine.files.read(path)).decode(),
    )
    # A person, or a program, can do something with it; to a model it would be a flood of letters.
    return [said, EmbeddedResource(resource=whole, annotations=Annotations(audience=["user"]))]


async def _edit(machine: AsyncMachine, path: str, old: str, new: str, everywhere: bool) -> int:
    """How often it was replaced. Whoever writes the file in the same moment is written over."""
    info = await _found(machine, path)
    if info.size > EDITED_BYTES:
        raise ToolError(f"{path} has {info.size} bytes, too many for this tool: change it with `run_python`.")
    try:
        text = (await machine.files.read(path)).decode()
    except UnicodeDecodeError:
        raise ToolError(f"{path} is no text in UTF-8: change it with `run_python`.") from None
    count = text.count(old)
    if not count:
        raise ToolError(f"`old` is not in {path}, to the letter: `read_file` shows what is.")
    if count > 1 and not everywhere:
        raise ToolError(
            f"`old` is in {path} {count} times: give more of what is around the one, or say `everywhere`. "
            "Nothing is changed."
        )
    await machine.files.write(path, text.replace(old, new))
    return count


async def _found(machine: AsyncMachine, path: str) -> FileInfo:
    """What is there, which is no folder."""
    try:
        info = await machine.files.info(path)
    except FileNotFound as error:
        raise ToolError(f"{error.message} `list_files` shows what is there.") from error
    if info.kind == "folder":
        raise ToolError(f"{path} is a folder: `list_files` shows what is in it.")
    return info


def _text(piece: bytes, first: int, size: int) -> str | None:
    """So much of a piece from byte `first` on as fits, and where it goes on; None if it is no text."""
    skipped = 0
    while first and skipped < min(3, len(piece)) and piece[skipped] & 0xC0 == 0x80:  # amid a character
        skipped += 1
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(piece[skipped:], first + len(piece) >= size)
    except UnicodeDecodeError:
        return None
    if "\0" in text:
        return None
    text = text[:PIECE_CHARACTERS]
    end = first + skipped + len(text.encode())
    return text + (f"\n[{size - end} more bytes from {end}]" if end < size else "")


def _picture(piece: bytes) -> str | None:
    """The type of a picture that models can look at, by how the file begins."""
    if piece.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if piece.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if piece.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    return "image/webp" if piece[:4] == b"RIFF" and piece[8:12] == b"WEBP" else None


def _row(info: FileInfo) -> FileRow:
    return FileRow(
        name=_shown(info.name),
        kind=info.kind,
        size=info.size,
        modified=info.modified,
        target=None if info.target is None else _shown(info.target),
    )


def _line(row: FileRow) -> str:
    if row.kind == "folder":
        return f"{row.name}/"
    what = f"{row.size} bytes" if row.kind == "file" else row.kind if row.target is None else f"→ {row.target}"
    return f"{row.name}: {what}, {row.modified:%Y-%m-%d %H:%M} UTC"


def _shown(name: str) -> str:
    """A name whose bytes are no UTF-8 with escapes: it could not be sent otherwise."""
    return name.encode("utf-8", "backslashreplace").decode()
