"""`machine.files` against the real application: the same on both sides of the wire, over cut connections too."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

import httpx2
import pytest
from tests.support.api import KEY, Api

import torpor

DATA = os.urandom(700_000)
CommandLine: TypeAlias = "Callable[..., subprocess.CompletedProcess[str]]"
ENOUGH = torpor.RetryPolicy(first_delay_seconds=0.01, first_contact_seconds=10)


@pytest.fixture
async def machine(live: Api) -> AsyncIterator[torpor.AsyncMachine]:
    async with torpor.AsyncClient(url=str(live.client.base_url), api_key=KEY, retry=ENOUGH) as client:
        yield await client.new_machine()


async def test_bytes_and_text_are_written_and_read(machine: torpor.AsyncMachine) -> None:
    files = machine.files
    await files.write("a/b", DATA)
    assert await files.read("a/b") == DATA
    await files.write("text", "größe\n")
    assert await files.read_text("text") == "größe\n"
    assert await files.read("a/b", length=5) == DATA[:5]
    assert await files.read("a/b", start=699_990) == await files.read("a/b", start=699_990, length=99) == DATA[-10:]
    with pytest.raises(torpor.RangeNotSatisfiable):
        await files.read("a/b", start=700_000)
    with pytest.raises(ValueError, match="below"):
        await files.read("a/b", start=-1)
    with pytest.raises(ValueError, match="below"):
        await files.read("a/b", length=0)
    await files.write("empty", b"")
    assert await files.read("empty", length=5) == b""
    info = await files.info("text", digest=True)
    assert (info.name, info.kind, info.size, info.mode) == ("text", "file", 8, 0o644)
    assert info.sha256 == hashlib.sha256("größe\n".encode()).hexdigest()
    assert await files.exists("a")
    assert not await files.exists("b")
    assert not await files.exists("text/below")
    await files.remove("a", recursive=True)
    assert not await files.exists("a/b")


async def test_names_of_any_bytes_go_round(machine: torpor.AsyncMachine) -> None:
    names = [os.fsdecode(b"\xff\xfe"), "a b%2F", "ümläut"]
    for name in names:
        await machine.files.write(f"sub/{name}", name.encode("utf-8", "surrogateescape"))
    listed = await machine.files.list("sub")
    assert sorted(file.name for file in listed) == sorted(names)
    for file in listed:
        assert await machine.files.read(file.path) == os.fsencode(file.name)
    assert await machine.files.read(b"sub/\xff\xfe") == b"\xff\xfe"


async def test_a_list_of_many_pages_is_one_list(machine: torpor.AsyncMachine) -> None:
    for number in range(7):
        await machine.files.write(f"many/{number}", b"")
    assert [file.name for file in await machine.files.list("many")] == [str(number) for number in range(7)]
    assert [file.name for file in await machine.files.list("many", limit=2)] == ["0", "1"]


async def test_each_refusal_is_an_error_of_its_own(machine: torpor.AsyncMachine) -> None:
    await machine.files.write("sub/a", b"1")
    with pytest.raises(torpor.FileNotFound):
        await machine.files.read("none")
    with pytest.raises(torpor.FileNotFound):
        await machine.files.info("none")
    with pytest.raises(torpor.IsAFolder):
        await machine.files.read("sub")
    with pytest.raises(torpor.NotAFolder):
        await machine.files.list("sub/a")
    with pytest.raises(torpor.FolderNotEmpty):
        await machine.files.remove("sub")
    with pytest.raises(torpor.InvalidPath):
        await machine.files.read("a\0b")


async def test_files_and_folders_are_copied_both_ways_with_progress(
    machine: torpor.AsyncMachine, tmp_path: Path
) -> None:
    (tmp_path / "in/deep").mkdir(parents=True)
    (tmp_path / "in/big").write_bytes(DATA)
    (tmp_path / "in/deep/small").write_text("1")
    told: list[tuple[int, int | None]] = []
    await machine.files.upload(tmp_path / "in/big", "big", progress=lambda done, total: told.append((done, total)))
    assert told[0] == (0, len(DATA))
    assert told[-1] == (len(DATA), len(DATA))
    await machine.files.upload(tmp_path / "in", "folder")
    assert await machine.files.read("folder/big") == DATA
    told.clear()
    await machine.files.download("big", tmp_path / "big", progress=lambda done, total: told.append((done, total)))
    assert (tmp_path / "big").read_bytes() == DATA
    assert told[-1] == (len(DATA), len(DATA))
    await machine.files.download("folder", tmp_path / "out")
    assert (tmp_path / "out/big").read_bytes() == DATA
    assert (tmp_path / "out/deep/small").read_text() == "1"
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".part")]


async def test_a_machine_is_made_by_its_first_file(live: Api) -> None:
    async with torpor.AsyncClient(url=str(live.client.base_url), api_key=KEY) as client:
        await client.machine("new-by-file").files.write("a", b"1")
        assert await client.machine("new-by-file").files.read("a") == b"1"


class Cut(httpx2.AsyncBaseTransport):
    """Cuts the bodies of answers to GET after so many bytes each, and does something before a download is resumed."""

    def __init__(self, cuts: list[int]) -> None:
        self.inner = httpx2.AsyncHTTPTransport()
        self.cuts = cuts
        self.ranges: list[str | None] = []
        self.before_a_resume: Callable[[], Awaitable[object]] | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        asked = request.headers.get("Range")
        if asked is not None and self.before_a_resume is not None:
            await self.before_a_resume()
        response = await self.inner.handle_async_request(request)
        if request.method != "GET":
            return response
        self.ranges.append(asked)
        if not self.cuts:
            return response
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        body = CutBody(response.stream, self.cuts.pop(0))
        return httpx2.Response(response.status_code, headers=response.headers, stream=body)

    async def aclose(self) -> None:
        await self.inner.aclose()


class CutBody(httpx2.AsyncByteStream):
    """A body that ends too early."""

    def __init__(self, stream: httpx2.AsyncByteStream, limit: int) -> None:
        self._stream = stream
        self._limit = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._stream:
            yield piece[: self._limit]
            self._limit -= len(piece)
            if self._limit <= 0:
                raise httpx2.ReadError("the connection was cut")

    async def aclose(self) -> None:
        await self._stream.aclose()


async def test_a_download_that_is_cut_goes_on_where_it_was_and_begins_anew_if_the_file_is_another(live: Api) -> None:
    transport = Cut([100_000, 50_000, 1])
    url = str(live.client.base_url)
    async with torpor.AsyncClient(url=url, api_key=KEY, retry=ENOUGH, transport=transport) as client:
        machine = await client.new_machine()
        await machine.files.write("f", DATA)
        assert await machine.files.read("f") == DATA
        assert transport.ranges == [None, "bytes=100000-", "bytes=150000-", "bytes=150001-"]
        transport.ranges.clear()
        transport.cuts.append(7)
        assert await machine.files.read("f", start=3, length=20) == DATA[3:23]
        assert transport.ranges == ["bytes=3-22", "bytes=10-22"]

        async def swap() -> None:
            transport.before_a_resume = None
            await live.client.put(f"/v1/machine/{machine.name}/files/f", content=DATA[::-1])

        transport.cuts.append(100_000)
        transport.before_a_resume = swap
        assert await machine.files.read("f") == DATA[::-1]


@pytest.fixture
def command_line(live: Api, tmp_path: Path) -> CommandLine:
    """`torpor` with arguments, in `tmp_path`."""
    environment = {
        **os.environ,
        "TORPOR_URL": str(live.client.base_url).rstrip("/"),
        "TORPOR_API_KEY": KEY,
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }

    def torpor_command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(Path(sys.executable).with_name("torpor")), *arguments],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return torpor_command


async def test_cp_and_files_on_the_command_line(
    machine: torpor.AsyncMachine, command_line: CommandLine, tmp_path: Path
) -> None:
    async def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(command_line, *arguments)

    name = machine.name
    (tmp_path / "data").write_bytes(DATA)
    (tmp_path / "sub/deep").mkdir(parents=True)
    (tmp_path / "sub/deep/x").write_text("1")
    assert (await run("cp", "data", f"{name}:")).returncode == 0
    assert (await run("cp", "data", f"{name}:as/other")).returncode == 0
    assert await machine.files.read("data") == await machine.files.read("as/other") == DATA
    assert (await run("cp", "data", f"{name}:as")).returncode == 0  # a folder that is there: below it
    assert await machine.files.exists("as/data")
    refused = await run("cp", "sub", f"{name}:sub")
    assert (refused.returncode, "-r" in refused.stderr) == (3, True)
    assert (await run("cp", "-r", "sub", f"{name}:sub")).returncode == 0
    assert await machine.files.read("sub/deep/x") == b"1"
    assert (await run("cp", "-r", f"{name}:sub", "back")).returncode == 0
    assert (tmp_path / "back/deep/x").read_text() == "1"
    assert (await run("cp", f"{name}:as/other", ".")).returncode == 0
    assert (tmp_path / "other").read_bytes() == DATA
    listed = await run("files", name)
    assert [line.split("\t")[0] for line in listed.stdout.splitlines()] == ["as/", "data", "sub/"]
    assert "-rw-r--r--" in listed.stdout
    assert (await run("files", name, "data", "--json")).returncode == 0
    assert (await run("files", name, "none")).returncode == 3
    assert (await run("cp", "data", "other")).returncode == 3
