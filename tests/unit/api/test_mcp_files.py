"""The tools for files over MCP, with the real application behind them."""

from __future__ import annotations

import asyncio
import base64
import os
import struct
import zlib
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp_types import BlobResourceContents, CallToolResult, EmbeddedResource, ImageContent
from tests.support.api import KEY, Api

import torpor
from torpor.tools.mcp import OwnSource, build_server
from torpor.tools.mcp.files import ENCLOSED_BYTES, LIST_LENGTH, PICTURE_BYTES, PIECE_CHARACTERS

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
async def api_client(live: Api) -> AsyncIterator[torpor.AsyncClient]:
    async with torpor.AsyncClient(url=str(live.client.base_url), api_key=KEY) as client:
        yield client


@pytest.fixture
async def files(api_client: torpor.AsyncClient) -> torpor.AsyncFiles:
    return api_client.machine("mcp").files


class Tools:
    """Calls of tools, one line each, and one connection each."""

    def __init__(self, api_client: torpor.AsyncClient) -> None:
        self.server = build_server(OwnSource(api_client))

    async def call(self, tool: str, **arguments: Any) -> CallToolResult:
        async with Client(self.server) as client:
            return await client.call_tool(tool, arguments)

    async def resource(self, uri: str) -> bytes:
        async with Client(self.server) as client:
            (content,) = (await client.read_resource(uri)).contents
        assert isinstance(content, BlobResourceContents)
        return base64.b64decode(content.blob)

    async def text(self, tool: str, **arguments: Any) -> str:
        result = await self.call(tool, **arguments)
        assert not result.is_error, result
        return "\n".join(block.text for block in result.content if block.type == "text")

    async def refusal(self, tool: str, **arguments: Any) -> str:
        result = await self.call(tool, **arguments)
        assert result.is_error, result
        return "\n".join(block.text for block in result.content if block.type == "text")


@pytest.fixture
def tools(api_client: torpor.AsyncClient) -> Tools:
    return Tools(api_client)


async def test_a_text_is_written_read_changed_and_listed(tools: Tools, files: torpor.AsyncFiles) -> None:
    assert "9 bytes" in await tools.text("write_file", path="data/größe.txt", content="größe\r\n")
    assert await files.read("data/größe.txt") == "größe\r\n".encode()
    assert await tools.text("read_file", path="data/größe.txt") == "größe\r\n"
    await tools.text("edit_file", path="data/größe.txt", old="ö", new="o")
    assert await files.read("data/größe.txt") == "große\r\n".encode()
    listed = await tools.call("list_files")
    assert listed.structured_content is not None
    assert [(row["name"], row["kind"]) for row in listed.structured_content["entries"]] == [("data", "folder")]
    assert (await tools.text("list_files", folder="data")).startswith("größe.txt: 8 bytes, 20")
    await tools.text("write_file", path="empty", content="")
    assert "empty" in await tools.text("read_file", path="empty")


async def test_of_a_long_text_pieces_follow_each_other_to_the_last_character(
    tools: Tools, files: torpor.AsyncFiles
) -> None:
    text = "aä€𝄞" * 20_000
    await files.write("long", text)
    read, start = "", 0
    while True:
        piece, _, rest = (await tools.text("read_file", path="long", start=start)).partition("\n[")
        assert len(piece) <= PIECE_CHARACTERS
        read += piece
        if not rest:
            break
        start = int(rest.rstrip("]").rpartition(" ")[2])
    assert read == text
    assert await tools.text("read_file", path="long", start=-7) == "€𝄞"
    assert await tools.text("read_file", path="long", start=-6) == "𝄞"  # amid a character
    assert await tools.text("read_file", path="long", start=-(10**9)) == await tools.text("read_file", path="long")
    assert "has only 200000 bytes" in await tools.refusal("read_file", path="long", start=200_000)


class Measured(httpx2.AsyncHTTPTransport):
    """How long the bodies of answers are."""

    def __init__(self) -> None:
        super().__init__()
        self.lengths: list[int] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        if request.method == "GET":
            self.lengths.append(int(response.headers["Content-Length"]))
        return response


async def test_of_a_large_file_only_a_piece_is_fetched(live: Api, files: torpor.AsyncFiles) -> None:
    await files.write("large", b"x" * (8 << 20))
    transport = Measured()
    async with torpor.AsyncClient(url=str(live.client.base_url), api_key=KEY, transport=transport) as client:
        piece = await Tools(client).text("read_file", path="large")
    assert piece.endswith(f"[{(8 << 20) - PIECE_CHARACTERS} more bytes from {PIECE_CHARACTERS}]")
    assert transport.lengths == [4 * PIECE_CHARACTERS]


@pytest.mark.parametrize(
    ("beginning", "mime_type"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a\x00\x80", "image/gif"),
        (b"RIFF\xff\x00\x00\x00WEBP", "image/webp"),
    ],
)
async def test_pictures_are_shown(tools: Tools, files: torpor.AsyncFiles, beginning: bytes, mime_type: str) -> None:
    picture = beginning + os.urandom(200_000)
    await files.write("picture.bin", picture)  # whatever it is called
    (block,) = (await tools.call("read_file", path="picture.bin")).content
    assert isinstance(block, ImageContent)
    assert (block.mime_type, base64.b64decode(block.data)) == (mime_type, picture)
    await files.write("picture.bin", beginning + bytes(PICTURE_BYTES))
    assert "make a smaller one" in await tools.refusal("read_file", path="picture.bin")


async def test_of_other_files_the_size_is_said_and_small_ones_come_along(
    tools: Tools, files: torpor.AsyncFiles
) -> None:
    archive = zlib.compress(b"hello") + struct.pack("<d", 1.5)
    await files.write("sub dir/a?#b%20.zip", archive)
    result = await tools.call("read_file", path="sub dir/a?#b%20.zip")
    said, enclosed = result.content
    assert f"({len(archive)} bytes) is no text" in getattr(said, "text", "")
    assert isinstance(enclosed, EmbeddedResource)
    assert enclosed.annotations is not None
    assert enclosed.annotations.audience == ["user"]
    assert isinstance(enclosed.resource, BlobResourceContents)
    assert enclosed.resource.mime_type == "application/zip"
    assert base64.b64decode(enclosed.resource.blob) == archive
    assert await tools.resource(enclosed.resource.uri) == archive
    await files.write("nul", b"text\0text")
    assert "is no text" in await tools.text("read_file", path="nul")
    await files.write("large", b"\xff" * (ENCLOSED_BYTES + 1))
    assert [block.type for block in (await tools.call("read_file", path="large")).content] == ["text"]
    await files.write("larger", bytes(9 << 20))
    async with Client(tools.server) as client:
        with pytest.raises(MCPError, match="torpor cp"):
            await client.read_resource("torpor://machine/mcp/file/larger")


async def test_what_cannot_be_done_with_a_file_says_what_can(tools: Tools, files: torpor.AsyncFiles) -> None:
    assert "`list_machines`" in await tools.refusal("read_file", path="a")
    assert "`list_machines`" in await tools.refusal("list_files")
    await files.write("sub/a", "one two one")
    assert "`list_files`" in await tools.refusal("read_file", path="none")
    assert "`list_files`" in await tools.refusal("read_file", path="sub")
    assert "`list_files`" in await tools.refusal("edit_file", path="none", old="a", new="b")
    assert "`read_file`" in await tools.refusal("list_files", folder="sub/a")
    assert "the home folder is listed" in await tools.refusal("list_files", folder="none")
    assert "name a file in it" in await tools.refusal("write_file", path="sub", content="")
    assert "zero byte" in await tools.refusal("write_file", path="a\0b", content="")
    assert "`read_file`" in await tools.refusal("edit_file", path="sub/a", old="three", new="")
    assert "2 times" in await tools.refusal("edit_file", path="sub/a", old="one", new="1")
    assert await files.read("sub/a") == b"one two one"
    assert "2 times" in await tools.text("edit_file", path="sub/a", old="one", new="1", everywhere=True)
    assert await files.read("sub/a") == b"1 two 1"
    await files.write("bytes", b"\xff")
    assert "`run_python`" in await tools.refusal("edit_file", path="bytes", old="a", new="b")


async def test_a_full_folder_is_cut_and_names_of_any_bytes_are_shown(tools: Tools, files: torpor.AsyncFiles) -> None:
    await files.write(b"odd/\xff", b"")
    assert (await tools.text("list_files", folder="odd")).startswith("\\udcff: 0 bytes")
    await asyncio.gather(*(files.write(f"many/{number:03}", b"") for number in range(LIST_LENGTH)))
    listed = await tools.call("list_files", folder="many")
    assert listed.structured_content is not None
    assert (len(listed.structured_content["entries"]), listed.structured_content["more"]) == (LIST_LENGTH, False)
    await files.write("many/200", b"")
    listed = await tools.call("list_files", folder="many")
    assert listed.structured_content is not None
    assert (len(listed.structured_content["entries"]), listed.structured_content["more"]) == (LIST_LENGTH, True)
    assert "and more" in await tools.text("list_files", folder="many")
