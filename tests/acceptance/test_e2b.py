"""Code that was written for E2B's interpreter, on real machines."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

import torpor
from torpor.compat.e2b import (
    AsyncCommandHandle,
    AsyncSandbox,
    CommandExitException,
    CommandHandle,
    CommandResult,
    FileNotFoundException,
    FileType,
    InvalidArgumentException,
    NotFoundException,
    Sandbox,
    SandboxException,
    SandboxQuery,
    SandboxState,
    TimeoutException,
)

if TYPE_CHECKING:
    from tests.support.server import ServerProcess

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(120)]


@pytest.fixture
def client(server: ServerProcess) -> Iterator[torpor.Client]:
    with torpor.Client(url=server.url, api_key=server.api_key) as client:
        yield client


def test_cells_answer_with_the_fields_that_e2b_has(client: torpor.Client) -> None:
    with Sandbox.create(metadata={"user": "42"}, envs={"GREETING": "hello"}, client=client) as sandbox:
        said: list[Any] = []
        execution = sandbox.run_code("import os; print(os.environ['GREETING']); a = 3; a", on_stdout=said.append)
        assert (execution.text, execution.logs.stdout, execution.error) == ("3", ["hello\n"], None)
        assert [str(message) for message in said] == ["hello\n"]
        plot = sandbox.run_code("import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show()")
        assert base64.b64decode(plot.results[0].png or "").startswith(b"\x89PNG")
        table = sandbox.run_code("import pandas; pandas.DataFrame({'x': [1]})")
        assert "<table" in (table.results[0].html or "")
        assert "html" in table.results[0].formats()
        failed = sandbox.run_code("1 / 0")
        assert failed.error is not None
        assert (failed.error.name, failed.error.value) == ("ZeroDivisionError", "division by zero")
        assert json.loads(failed.to_json())["results"] == []
        assert sandbox.machine.detail().tags == {"e2b-user": "42"}
    assert not sandbox.is_running()


def test_commands_end_with_their_code_and_can_be_waited_for(client: torpor.Client) -> None:
    with Sandbox(client=client) as sandbox:
        done = sandbox.commands.run("echo $WHO; echo careful >&2", envs={"WHO": "ada"})
        assert isinstance(done, CommandResult)
        assert (done.stdout, done.stderr, done.exit_code) == ("ada\n", "careful\n", 0)
        with pytest.raises(CommandExitException) as caught:
            sandbox.commands.run("exit 3")
        assert caught.value.exit_code == 3
        handle = sandbox.commands.run("sleep 1000", background=True)
        assert isinstance(handle, CommandHandle)
        assert sandbox.commands.kill(handle.pid)
        with pytest.raises(CommandExitException) as caught:
            handle.wait()
        assert caught.value.exit_code == 137


def test_files_are_written_read_listed_and_moved(client: torpor.Client) -> None:
    with Sandbox.create(client=client) as sandbox:
        files = sandbox.files
        written = files.write("data/in.csv", "a,b\n1,2\n")
        assert (written.name, written.type, written.path) == ("in.csv", FileType.FILE, "/home/user/data/in.csv")
        assert files.read("data/in.csv") == "a,b\n1,2\n"
        assert sandbox.run_code("open('data/in.csv').read()").text == "'a,b\\n1,2\\n'"
        pieces: list[Any] = [b"\x00\xff", bytearray(b"\x01")]
        many = files.write_files(
            [
                {"path": "/tmp/many/one", "data": b"\xff\x00"},
                {"path": "/tmp/many/two", "data": io.BytesIO(b"two")},
                {"path": "/tmp/many/three/four", "data": pieces},
            ]
        )
        assert [one.path for one in many] == ["/tmp/many/one", "/tmp/many/two", "/tmp/many/three/four"]
        assert files.read("/tmp/many/one", format="bytes") == bytearray(b"\xff\x00")
        assert files.read("/tmp/many/three/four", "bytes") == b"\x00\xff\x01"
        assert files.read("/tmp/many/one") == "\N{REPLACEMENT CHARACTER}\x00"
        sandbox.commands.run("ln -s one /tmp/many/link; mkfifo /tmp/many/fifo; chmod 600 /tmp/many/one")
        entries = {entry.name: entry for entry in files.list("/tmp/many")}
        assert {name: entry.type for name, entry in entries.items()} == {
            "link": FileType.SYMLINK,
            "one": FileType.FILE,
            "three": FileType.DIR,
            "two": FileType.FILE,
        }
        one = entries["one"]
        assert (one.size, one.mode, one.permissions, one.owner, one.path) == (
            2,
            0o600,
            "-rw-------",
            "user",
            "/tmp/many/one",
        )
        assert entries["link"].symlink_target == "one"
        assert entries["three"].permissions == "drwxr-xr-x"
        assert [entry.path for entry in files.list("/tmp/many", depth=2) if entry.name == "four"] == [
            "/tmp/many/three/four"
        ]
        assert files.make_dir("fresh/folder")
        assert not files.make_dir("fresh/folder")
        assert files.list("fresh/folder") == []
        moved = files.rename("data/in.csv", "else/where/-a file.csv")
        assert (moved.path, files.exists("data/in.csv")) == ("/home/user/else/where/-a file.csv", False)
        assert files.get_info("else").type is FileType.DIR
        files.remove("else")
        files.remove("else")
        assert not files.exists("else")


def test_what_is_wrong_with_files_is_raised_as_e2b_raises_it(client: torpor.Client) -> None:
    with Sandbox.create(client=client) as sandbox:
        files = sandbox.files
        files.write("full/file", "")
        for ask in (files.read, files.list, files.get_info, lambda path: files.rename(path, "new")):
            with pytest.raises(FileNotFoundException):
                ask("nowhere")
        with pytest.raises(NotFoundException):
            files.read("nowhere", "bytes")
        wrong: list[Any] = [
            lambda: files.read("full"),
            lambda: files.write("full", "text"),
            lambda: files.list("full/file"),
            lambda: files.list("full", depth=0),
            lambda: files.make_dir("full/file"),
            lambda: files.write("new", 3),  # type: ignore[arg-type]
            lambda: files.write("new", ["text"]),  # type: ignore[list-item]
            lambda: files.write("new", "", metadata={"a": "b"}),
            lambda: files.read("full/file", "stream"),  # type: ignore[call-overload]
        ]
        for ask in wrong:
            with pytest.raises(InvalidArgumentException):
                ask()
        with pytest.raises(SandboxException, match="full"):
            files.rename("full/file", "full")
        assert not files.exists("new")


def test_a_paused_sandbox_is_connected_to_from_anywhere(server: ServerProcess, client: torpor.Client) -> None:
    sandbox = Sandbox.create(client=client)
    sandbox.run_code("a = 3")
    assert sandbox.pause()
    server.restart()
    assert Sandbox.connect(sandbox.sandbox_id, client=client).run_code("a + 5").text == "8"
    assert sandbox.kill()
    assert not sandbox.kill()
    with pytest.raises(torpor.MachineNotFound):
        Sandbox.connect(sandbox.sandbox_id, client=client)
    with pytest.raises(torpor.TorporError, match="java"):
        Sandbox.create(client=client).run_code("1", language="java")


def test_what_e2b_takes_and_means_nothing_here_is_taken(server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORPOR_URL", server.url)
    with pytest.raises(torpor.ConfigError):
        Sandbox.create(api_key="e2b_0123456789")
    sandbox = Sandbox.create(api_key=server.api_key, domain="e2b.example", secure=True, idempotency_key="one")
    monkeypatch.setenv("TORPOR_API_KEY", server.api_key)
    again = Sandbox.create(
        "code-interpreter-v1",
        api_key="e2b_0123456789",
        request_timeout=30,
        headers={"a": "b"},
        allow_internet_access=True,
        network={"allow_out": []},
        lifecycle={"on_timeout": "pause"},
    )
    assert again.sandbox_id != sandbox.sandbox_id
    assert Sandbox.create(idempotency_key="one").sandbox_id == sandbox.sandbox_id
    assert Sandbox.create("data").get_info().template_id == "data"
    refused: list[Any] = [
        lambda: Sandbox.create("desktop"),
        lambda: Sandbox.create("desktop:latest"),
        lambda: Sandbox.create(mcp={"github": {}}),
        lambda: sandbox.run_code("1", context="another"),  # type: ignore[arg-type]
        lambda: sandbox.create_snapshot("named"),
        lambda: Sandbox.list(next_token="more"),
    ]
    for ask in refused:
        with pytest.raises(InvalidArgumentException):
            ask()
    with pytest.raises(TypeError, match="api_kye"):
        Sandbox.create(api_kye=server.api_key)  # type: ignore[call-arg]


def test_sandboxes_are_forked_kept_found_and_asked_for_by_id(client: torpor.Client) -> None:
    sandbox = Sandbox.create(metadata={"user": "42"}, client=client)
    sandbox.run_code("a = 3")
    info = sandbox.get_info()
    assert (info.sandbox_id, info.metadata) == (sandbox.sandbox_id, {"user": "42"})
    assert (info.template_id, info.memory_mb, info.end_at) == ("python", 1024, None)
    kept = sandbox.create_snapshot()
    sandbox.run_code("a = 0")
    left, right = sandbox.fork(count=2)
    assert isinstance(left, Sandbox)
    assert isinstance(right, Sandbox)
    left.run_code("a += 5")
    assert [each.run_code("a").text for each in (left, right, sandbox)] == ["5", "0", "0"]
    again = Sandbox.create(kept.snapshot_id, metadata={"user": "7"}, client=client)
    assert (again.run_code("a + 5").text, again.get_info().metadata) == ("8", {"user": "7"})
    assert sandbox.list_snapshots().next_items() == [kept]
    assert Sandbox.delete_snapshot(kept.snapshot_id, client=client)
    assert sandbox.list_snapshots().next_items() == []
    assert not Sandbox.delete_snapshot("abcdefghijklmnop:1", client=client)

    assert Sandbox.pause(sandbox.sandbox_id, client=client)
    assert Sandbox.get_info(sandbox.sandbox_id, client=client).state is SandboxState.PAUSED
    pages = Sandbox.list(SandboxQuery(metadata={"user": "42"}), limit=2, client=client)
    found = [[each.sandbox_id for each in pages.next_items()] for _ in range(2)]
    assert [len(page) for page in found] == [2, 1]
    assert found[1] == [sandbox.sandbox_id]
    assert not pages.has_next
    with pytest.raises(SandboxException):
        pages.next_items()
    asleep = SandboxQuery(metadata={"user": "42"}, state=[SandboxState.PAUSED])
    assert [each.sandbox_id for each in Sandbox.list(asleep, client=client).next_items()] == [sandbox.sandbox_id]
    assert sandbox.connect() is sandbox
    sandbox.machine.wake()
    assert sandbox.get_info().state is SandboxState.RUNNING
    assert Sandbox.kill(sandbox.sandbox_id, client=client)
    assert not Sandbox.kill(sandbox.sandbox_id, client=client)


def test_commands_in_the_background_are_listed_fed_followed_and_ended_in_time(client: torpor.Client) -> None:
    with Sandbox.create(client=client) as sandbox:
        commands = sandbox.commands
        reader = commands.run("while read line; do echo got $line; done", background=True, stdin=True, envs={"A": "b"})
        assert isinstance(reader, CommandHandle)
        (listed,) = commands.list()
        assert (listed.pid, listed.args[-1], listed.envs) == (
            reader.pid,
            "while read line; do echo got $line; done",
            {"A": "b"},
        )
        reader.send_stdin(b"3\n")
        reader.disconnect()
        commands.send_stdin(reader.pid, "5\n")
        pieces = iter(commands.connect(reader.pid))
        assert next(pieces)[0].startswith("got 3\n")  # type: ignore[union-attr]
        commands.close_stdin(reader.pid)
        assert reader.wait().stdout == "got 3\ngot 5\n"
        assert commands.list() == []
        short = commands.run("sleep 1000", background=True, timeout=1)
        with pytest.raises(TimeoutException):
            short.wait()  # type: ignore[union-attr]
        with pytest.raises(TimeoutException):
            commands.run("sleep 1000", timeout=1)


async def test_the_asynchronous_sandbox_does_the_same_awaited(server: ServerProcess) -> None:
    said: list[str] = []

    async def told(piece: object) -> None:
        await asyncio.sleep(0)
        said.append(str(piece))

    async with (
        torpor.AsyncClient(url=server.url, api_key=server.api_key) as client,
        await AsyncSandbox.create(metadata={"user": "42"}, envs={"GREETING": "hello"}, client=client) as sandbox,
    ):
        execution = await sandbox.run_code("import os; print(os.environ['GREETING']); a = 3; a", on_stdout=told)
        assert (execution.text, execution.logs.stdout, execution.error, said) == ("3", ["hello\n"], None, ["hello\n"])
        ends: list[Any] = []
        await sandbox.run_code("a + 5", on_result=ends.append)
        await sandbox.run_code("1 / 0", on_error=ends.append)
        assert [ends[0].text, ends[1].name] == ["8", "ZeroDivisionError"]
        assert (await sandbox.machine.detail()).tags == {"e2b-user": "42"}
        with pytest.raises(torpor.TorporError, match="java"):
            await sandbox.run_code("1", language="java")

        said.clear()
        done = await sandbox.commands.run("echo $WHO; echo careful >&2", envs={"WHO": "ada"}, on_stderr=told)
        assert isinstance(done, CommandResult)
        assert (done.stdout, done.stderr, done.exit_code, said) == ("ada\n", "careful\n", 0, ["careful\n"])
        with pytest.raises(CommandExitException) as caught:
            await sandbox.commands.run("exit 3")
        assert caught.value.exit_code == 3
        handle = await sandbox.commands.run("read line; echo got $line", background=True, stdin=True, on_stdout=told)
        assert isinstance(handle, AsyncCommandHandle)
        await handle.send_stdin("3\n")
        assert ((await handle.wait()).stdout, said[-1]) == ("got 3\n", "got 3\n")
        assert not await handle.kill()
        handle = await sandbox.commands.run("sleep 1000", background=True)
        assert await sandbox.commands.kill(handle.pid)  # type: ignore[union-attr]
        with pytest.raises(CommandExitException) as caught:
            await (await sandbox.commands.connect(handle.pid)).wait()  # type: ignore[union-attr]
        assert caught.value.exit_code == 137
    assert await _is_gone(server, sandbox.sandbox_id)


async def test_asynchronous_sandboxes_are_forked_kept_found_and_asked_for_by_id(
    server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORPOR_URL", server.url)
    key = server.api_key
    async with await AsyncSandbox.create(metadata={"user": "42"}, api_key=key) as sandbox:
        await sandbox.run_code("a = 3")
        kept = await sandbox.create_snapshot()
        (fork,) = await sandbox.fork()
        assert isinstance(fork, AsyncSandbox)
        async with fork:
            assert (await fork.run_code("a + 5")).text == "8"
        async with await AsyncSandbox.create(kept.snapshot_id, api_key=key) as again:
            assert (await again.run_code("a + 5")).text == "8"
            assert (await again.get_info()).metadata == {}
        assert await sandbox.list_snapshots().next_items() == [kept]
        assert await AsyncSandbox.delete_snapshot(kept.snapshot_id, api_key=key)
        assert not await AsyncSandbox.delete_snapshot("abcdefghijklmnop:1", api_key=key)
        assert await AsyncSandbox.pause(sandbox.sandbox_id, api_key=key)
        assert (await AsyncSandbox.get_info(sandbox.sandbox_id, api_key=key)).state is SandboxState.PAUSED
        pages = AsyncSandbox.list(SandboxQuery(metadata={"user": "42"}), api_key=key)
        assert [each.sandbox_id for each in await pages.next_items()] == [sandbox.sandbox_id]
        assert not pages.has_next
        assert await sandbox.connect() is sandbox

        commands = sandbox.commands
        reader = await commands.run("read line; echo got $line; cat", background=True, stdin=True)
        assert isinstance(reader, AsyncCommandHandle)
        assert [each.pid for each in await commands.list()] == [reader.pid]
        await commands.send_stdin(reader.pid, b"3\n")
        await commands.close_stdin(reader.pid)
        assert (await reader.wait()).stdout == "got 3\n"
        short = await commands.run("sleep 1000", background=True, timeout=1)
        with pytest.raises(TimeoutException):
            await short.wait()  # type: ignore[union-attr]
    assert not await AsyncSandbox.kill(sandbox.sandbox_id, api_key=key)


async def _is_gone(server: ServerProcess, sandbox_id: str) -> bool:
    async with torpor.AsyncClient(url=server.url, api_key=server.api_key) as client:
        try:
            await AsyncSandbox.connect(sandbox_id, client=client)
        except torpor.MachineNotFound:
            return True
        return False


async def test_files_of_the_asynchronous_sandbox(server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"\x00"
        yield b"\xff"

    monkeypatch.setenv("TORPOR_URL", server.url)
    monkeypatch.setenv("TORPOR_API_KEY", server.api_key)
    async with await AsyncSandbox.create() as sandbox:
        files = sandbox.files
        written = await files.write("data/in.csv", "a,b\n1,2\n")
        assert (written.name, written.type, written.path) == ("in.csv", FileType.FILE, "/home/user/data/in.csv")
        assert await files.read("data/in.csv") == "a,b\n1,2\n"
        await files.write_files(
            [{"path": "data/deep/x", "data": pieces()}, {"path": "data/y", "data": io.StringIO("y")}]
        )
        assert await files.read("data/deep/x", "bytes") == bytearray(b"\x00\xff")
        assert [entry.name for entry in await files.list("data", depth=2)] == ["deep", "x", "in.csv", "y"]
        assert await files.make_dir("fresh/folder")
        assert not await files.make_dir("fresh/folder")
        moved = await files.rename("data/in.csv", "else/where")
        assert (moved.path, await files.exists("data/in.csv")) == ("/home/user/else/where", False)
        assert (await files.get_info("else")).type is FileType.DIR
        await files.remove("else")
        await files.remove("else")
        for ask in (files.read, files.list, files.get_info):
            with pytest.raises(FileNotFoundException):
                await ask("nowhere")
        with pytest.raises(InvalidArgumentException):
            await files.write("new", "", metadata={"a": "b"})
        with pytest.raises(InvalidArgumentException):
            await files.read("data")


async def test_a_paused_asynchronous_sandbox_is_connected_to_from_anywhere(server: ServerProcess) -> None:
    async with torpor.AsyncClient(url=server.url, api_key=server.api_key) as client:
        sandbox = await AsyncSandbox.create(client=client)
        await sandbox.run_code("a = 3")
        assert await sandbox.pause()
        await asyncio.to_thread(server.restart)
        again = await AsyncSandbox.connect(sandbox.sandbox_id, client=client)
        assert (await again.run_code("a + 5")).text == "8"
        assert await again.is_running()
        assert await again.kill()
        assert not await again.kill()
        with pytest.raises(torpor.MachineNotFound):
            await AsyncSandbox.connect(sandbox.sandbox_id, client=client)
