"""The shapes of E2B's published interpreter, and ours beside them."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import io
import re
from collections.abc import Callable, Iterator

import e2b
import e2b_code_interpreter
import pytest
from conftest import DOCS
from e2b.connection_config import ApiParams
from e2b.sandbox_async.commands.command import Commands as AsyncCommands
from e2b.sandbox_async.filesystem.filesystem import Filesystem as AsyncFilesystem
from e2b.sandbox_sync.commands.command import Commands
from e2b.sandbox_sync.filesystem.filesystem import Filesystem

import torpor
from torpor.compat import e2b as ours
from torpor.compat.e2b_options import Options

SHAPES = (
    *("Execution", "ExecutionError", "Logs", "OutputMessage", "Result", "EntryInfo", "WriteInfo", "CommandResult"),
    *("ProcessInfo", "SandboxInfo", "SandboxQuery", "SnapshotInfo"),
)
TWINS: dict[str, list[tuple[type, type]]] = {
    "": [(e2b_code_interpreter.Sandbox, ours.Sandbox), (e2b_code_interpreter.AsyncSandbox, ours.AsyncSandbox)],
    "commands.": [(Commands, ours.Commands), (AsyncCommands, ours.AsyncCommands)],
    "files.": [(Filesystem, ours.Filesystem), (AsyncFilesystem, ours.AsyncFilesystem)],
    **{
        f"{name}.": [(getattr(e2b, f"{before}{name}"), getattr(ours, f"{before}{name}")) for before in ("", "Async")]
        for name in ("SandboxPaginator", "SnapshotPaginator")
    },
    **{
        f"{name}.": [(getattr(e2b_code_interpreter, name), getattr(ours, name))]
        for name in (*SHAPES, "CommandHandle", "AsyncCommandHandle", "CommandExitException", "FileType")
    },
}
"""Their public classes, and ours, by what the guide puts before the names of what is in them."""


def names(kind: type) -> set[str]:
    """What users find in a class, and what notebooks do."""
    fields = {name for base in kind.__mro__ for name in inspect.get_annotations(base)}
    found = fields | set(dir(kind)) - set(dir(Exception))
    return {name for name in found if not name.startswith("_") or name.startswith("_repr_")}


METHODS = [
    pytest.param(getattr(theirs, name), getattr(own, name), id=f"{own.__name__}.{name}")
    for twins in TWINS.values()
    for theirs, own in twins
    for name in sorted(names(theirs) & names(own))
    if callable(getattr(theirs, name, None))
]


@pytest.fixture
def sandbox(client: torpor.Client) -> Iterator[ours.Sandbox]:
    with ours.Sandbox.create(client=client) as sandbox:
        yield sandbox


@pytest.mark.parametrize("name", SHAPES)
def test_answers_have_the_fields_that_theirs_have_in_the_same_order(name: str) -> None:
    theirs, own = (dataclasses.fields(getattr(module, name)) for module in (e2b_code_interpreter, ours))
    assert [field.name for field in own] == [field.name for field in theirs]


def test_the_guide_lists_what_is_not_there_and_nothing_else() -> None:
    lines = re.findall(r"^- (.+?):\s", (DOCS / "guides" / "e2b.md").read_text().split("## Not there")[1], re.M | re.S)
    missing = {
        f"{where}{name}"
        for where, twins in TWINS.items()
        for theirs, own in twins
        for name in names(theirs) - names(own)
    }
    assert {name for line in lines for name in re.findall("`(.+?)`", line)} == missing


@pytest.mark.parametrize(("theirs", "own"), METHODS)
def test_a_call_takes_what_theirs_takes(theirs: object, own: object) -> None:
    their_call, call = inspect.unwrap(theirs), inspect.unwrap(own)  # type: ignore[arg-type]
    assert inspect.iscoroutinefunction(call) == inspect.iscoroutinefunction(their_call)
    wanted, taken = (list(inspect.signature(each).parameters.values()) for each in (their_call, call))
    assert positional(taken)[: len(positional(wanted))] == positional(wanted)
    assert named(wanted).items() <= named(taken).items()
    assert any(each.kind is each.VAR_KEYWORD for each in wanted) <= any(each.kind is each.VAR_KEYWORD for each in taken)


def positional(parameters: list[inspect.Parameter]) -> list[tuple[str, object]]:
    return [(each.name, each.default) for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]


def named(parameters: list[inspect.Parameter]) -> dict[str, object]:
    return {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}


def test_the_options_of_a_call_are_those_of_theirs() -> None:
    assert ApiParams.__optional_keys__ | {"client"} == Options.__optional_keys__
    with pytest.raises(TypeError, match="time_out"):
        ours.Sandbox.kill("abcdefghijklmnop", time_out=3)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("NotFoundException", "SandboxException"),
        ("FileNotFoundException", "NotFoundException"),
        ("InvalidArgumentException", "SandboxException"),
        ("NotEnoughSpaceException", "SandboxException"),
        ("CommandExitException", "SandboxException"),
        ("TimeoutException", "SandboxException"),
    ],
)
def test_exceptions_are_caught_as_theirs_are(name: str, base: str) -> None:
    for package in (e2b_code_interpreter, ours):
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
    theirs = e2b_code_interpreter.Result(
        **{field.name: table[field.name] for field in dataclasses.fields(e2b_code_interpreter.Result)}
    )
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
