"""The shapes of E2B's published interpreter, and ours beside them."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import io
from collections.abc import Callable, Iterator

import e2b_code_interpreter as e2b
import pytest
from e2b.sandbox_async.commands.command import Commands as AsyncCommands
from e2b.sandbox_async.filesystem.filesystem import Filesystem as AsyncFilesystem
from e2b.sandbox_sync.filesystem.filesystem import Filesystem

import torpor
from torpor.compat import e2b as ours

SHAPES = ["Execution", "ExecutionError", "Logs", "OutputMessage", "Result", "EntryInfo", "WriteInfo"]
FILE_METHODS = ("read", "write", "write_files", "list", "exists", "get_info", "remove", "rename", "make_dir")


@pytest.fixture
def sandbox(client: torpor.Client) -> Iterator[ours.Sandbox]:
    with ours.Sandbox.create(client=client) as sandbox:
        yield sandbox


@pytest.mark.parametrize("name", SHAPES)
def test_answers_have_every_field_that_theirs_have(name: str) -> None:
    theirs = {field.name for field in dataclasses.fields(getattr(e2b, name))}
    own = {field.name for field in dataclasses.fields(getattr(ours, name))}
    assert theirs - own == set()


@pytest.mark.parametrize(
    ("theirs", "own"), [(e2b.Sandbox, ours.Sandbox), (e2b.AsyncSandbox, ours.AsyncSandbox)], ids=["sync", "async"]
)
def test_calls_take_the_arguments_that_theirs_take(theirs: type, own: type) -> None:
    for method, left_out in (("run_code", {"context"}), ("is_running", set())):
        names = set(inspect.signature(getattr(theirs, method)).parameters) - left_out
        assert names - set(inspect.signature(getattr(own, method)).parameters) == set()


@pytest.mark.parametrize(
    ("theirs", "own"), [(Filesystem, ours.Filesystem), (AsyncFilesystem, ours.AsyncFilesystem)], ids=["sync", "async"]
)
@pytest.mark.parametrize("method", FILE_METHODS)
def test_files_take_the_arguments_that_theirs_take_in_the_same_order(method: str, theirs: type, own: type) -> None:
    their_parameters = inspect.signature(getattr(theirs, method)).parameters
    parameters = inspect.signature(getattr(own, method)).parameters
    assert list(parameters) == list(their_parameters)
    assert [each.default for each in parameters.values()] == [each.default for each in their_parameters.values()]
    assert inspect.iscoroutinefunction(getattr(own, method)) == inspect.iscoroutinefunction(getattr(theirs, method))


def test_what_is_awaited_of_theirs_is_awaited_here() -> None:
    for theirs, own, names in (
        (e2b.AsyncSandbox, ours.AsyncSandbox, ("create", "run_code", "is_running")),
        (AsyncCommands, ours.AsyncCommands, ("run", "kill", "connect")),
    ):
        for name in names:
            assert inspect.iscoroutinefunction(getattr(theirs, name)), name
            assert inspect.iscoroutinefunction(getattr(own, name)), name


@pytest.mark.parametrize("filesystem", [Filesystem, AsyncFilesystem], ids=["sync", "async"])
def test_of_files_only_watching_is_not_there(filesystem: type) -> None:
    theirs = {name for name, _ in inspect.getmembers(filesystem, inspect.isfunction) if not name.startswith("_")}
    assert theirs - {*FILE_METHODS} == {"watch_dir"}
    assert [kind.value for kind in ours.FileType] == [kind.value for kind in e2b.FileType]


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("NotFoundException", "SandboxException"),
        ("FileNotFoundException", "NotFoundException"),
        ("InvalidArgumentException", "SandboxException"),
        ("NotEnoughSpaceException", "SandboxException"),
        ("CommandExitException", "SandboxException"),
    ],
)
def test_exceptions_are_caught_as_theirs_are(name: str, base: str) -> None:
    for package in (e2b, ours):
        assert issubclass(getattr(package, name), getattr(package, base))


def test_what_is_known_of_a_file_makes_one_of_theirs(sandbox: ours.Sandbox) -> None:
    written = sandbox.files.write("data/in.csv", io.StringIO("a,b\n"))
    info = sandbox.files.get_info("data/in.csv")
    for value, kind in ((written, e2b.WriteInfo), (info, e2b.EntryInfo)):
        theirs = kind(**{field.name: getattr(value, field.name) for field in dataclasses.fields(kind)})
        assert (theirs.name, theirs.path) == ("in.csv", "/home/user/data/in.csv")
        assert [field.name for field in dataclasses.fields(kind)] == [each.name for each in dataclasses.fields(value)]


def test_a_result_lists_its_forms_as_theirs_does(client: torpor.Client) -> None:
    sandbox = ours.Sandbox.create(client=client)
    try:
        table = sandbox.run_code("import pandas; pandas.DataFrame({'x': [1]})").results[0]
    finally:
        sandbox.kill()
    theirs = e2b.Result(**{field.name: table[field.name] for field in dataclasses.fields(e2b.Result)})
    assert list(theirs.formats()) == table.formats()


def test_notices_are_lines_on_stderr_and_hidden_calls_leave_them(
    sandbox: ours.Sandbox, recovered: Callable[[str], None]
) -> None:
    said: list[str] = []
    for run in (
        lambda: sandbox.run_code("1", envs={"a": "1"}, on_stderr=lambda message: said.append(message.line)).logs.stderr,
        lambda: [sandbox.commands.run("true", on_stderr=said.append).stderr],  # type: ignore[union-attr]
    ):
        said.clear()
        recovered(sandbox.sandbox_id)
        sandbox.files.write("a", "1")
        sandbox.files.rename("a", "b")
        (line,) = run()
        assert line.startswith("[torpor] ")
        assert said == [line]
        assert sandbox.run_code("kept").logs.stderr == []


async def test_the_asynchronous_sandbox_tells_notices_too(recovered: Callable[[str], None]) -> None:
    async with await ours.AsyncSandbox.create() as sandbox:
        said: list[str] = []
        for command in (False, True):
            said.clear()
            await asyncio.to_thread(recovered, sandbox.sandbox_id)
            if command:
                done = await sandbox.commands.run("true", on_stderr=said.append)
                lines = [done.stderr]  # type: ignore[union-attr]
            else:
                cell = await sandbox.run_code("1", envs={"a": "1"}, on_stderr=lambda message: said.append(message.line))
                lines = cell.logs.stderr
            assert [line.startswith("[torpor] ") for line in lines] == [True]
            assert said == lines


async def test_the_asynchronous_sandbox_runs_code_beside_theirs() -> None:
    async with await ours.AsyncSandbox.create() as sandbox:
        assert (await sandbox.run_code("a = 3; a")).text == "3"
        info = await sandbox.files.write("a", "1")
        assert (
            e2b.WriteInfo(**{field.name: getattr(info, field.name) for field in dataclasses.fields(info)}).name == "a"
        )
