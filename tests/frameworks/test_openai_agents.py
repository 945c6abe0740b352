"""OpenAI's published Agents SDK over the wire of a scripted model, and a machine on real gVisor."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from agents import Agent, RunConfig, Runner, RunState, UserError
from agents.models.openai_responses import OpenAIResponsesModel
from agents.run_config import SandboxRunConfig
from agents.sandbox import Manifest, SandboxAgent
from agents.sandbox.entries import File
from agents.sandbox.errors import (
    ExecTimeoutError,
    InvalidManifestPathError,
    PtySessionNotFoundError,
    WorkspaceArchiveReadError,
    WorkspaceReadNotFoundError,
)
from agents.sandbox.session import SandboxSession
from agents.sandbox.snapshot import LocalSnapshot
from openai import AsyncOpenAI

import torpor
import torpor.tools.openai_agents
from torpor.tools import machine_of
from torpor.tools.openai_agents import (
    INSTRUCTIONS,
    TorporSandboxClient,
    TorporSandboxClientOptions,
    python_tool,
)

PLOT = "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show(); print('drawn')"
COUNT = "n = globals().get('n', 0) + 1; n"


def response(*output: dict[str, Any]) -> dict[str, Any]:
    usage = {
        "input_tokens": 1,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 1,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 2,
    }
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": "scripted",
        "output": list(output),
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage,
    }


def call(call_id: str, name: str, **arguments: Any) -> dict[str, Any]:
    item = {"type": "function_call", "id": f"fc_{call_id}", "call_id": call_id, "name": name}
    return {**item, "arguments": json.dumps(arguments)}


def python(call_id: str, code: str) -> dict[str, Any]:
    return call(call_id, "python", code=code, timeout_seconds=None)


def saying(text: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content}


DONE = response(saying("done"))


def outputs(request: dict[str, Any]) -> dict[str, Any]:
    """What tools have returned, by call."""
    return {item["call_id"]: item["output"] for item in request["input"] if "output" in item}


async def run(agent: Agent[None], url: str, said: Any = "Go on.", **config: Any) -> Any:
    """A run of an agent whose model is at an address."""
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as openai:
        model = OpenAIResponsesModel(model="scripted", openai_client=openai)
        settings = RunConfig(model=model, tracing_disabled=True, **config)
        return await Runner.run(agent, said, run_config=settings)


def analyst(client: torpor.Client | torpor.AsyncClient | None = None, **changes: Any) -> Agent[None]:
    tool = replace(python_tool(client), **changes)
    return Agent("Analyst", instructions=INSTRUCTIONS, tools=[tool])


# The function tool.


async def test_an_agent_runs_code_and_reads_text_images_and_errors(
    conversation: str, model: Any, later: Callable[..., str], client: torpor.Client
) -> None:
    model.answers = [response(python("c1", "a = 3"), python("c2", PLOT)), response(python("c3", "1 / 0")), DONE]
    result = await run(analyst(client), model.url, group_id=conversation)
    assert result.final_output == "done"
    (tool,) = model.requests[0]["tools"]
    assert (tool["name"], tool["strict"]) == ("python", True)
    read = outputs(model.requests[1])
    assert read["c1"] == "(no output)"
    assert [part["type"] for part in read["c2"]] == ["input_text", "input_image"]
    assert read["c2"][1]["image_url"].startswith("data:image/png;base64,iVBOR")
    assert outputs(model.requests[2])["c3"].endswith("ZeroDivisionError: division by zero")
    model.answers = [response(python("c4", "a + 5")), lambda request: response(saying(outputs(request)["c4"]))]
    assert await asyncio.to_thread(later, model.url) == "8"
    assert [row.code for row in client.machine(conversation).history()] == ["a + 5", "1 / 0", PLOT, "a = 3"]


def later(conversation: str, url: str) -> str:
    """The same conversation in another process."""
    return str(asyncio.run(run(analyst(), url, group_id=conversation)).final_output)


async def test_a_call_that_is_sent_again_is_not_run_again(conversation: str, model: Any) -> None:
    async with torpor.AsyncClient() as client:
        for _ in range(2):
            model.answers = [response(python("c1", COUNT)), DONE]
            await run(analyst(client), model.url, group_id=conversation)
            assert outputs(model.requests[-1])["c1"] == "1"
        assert (await machine_of(client, conversation).run("n")).value == "1"


async def test_a_run_that_waits_for_approval_goes_on_in_another_process_and_runs_it_once(
    conversation: str, model: Any, tmp_path: Path, replaced: Callable[..., str], client: torpor.Client
) -> None:
    model.answers = [response(python("c1", COUNT))]
    waiting = await run(analyst(client, needs_approval=True), model.url, group_id=conversation)
    kept = tmp_path / "state.json"
    kept.write_text(waiting.to_state().to_string())
    for _ in range(2):  # the first process dies before it can say that it went on
        model.answers = [lambda request: response(saying(outputs(request)["c1"]))]
        arguments = (conversation, model.url, str(kept))
        assert await asyncio.to_thread(replaced, *arguments, function="approved") == "1"


def approved(conversation: str, url: str, kept: str) -> str:
    """A run that goes on from its state."""

    text = Path(kept).read_text()

    async def go_on() -> str:
        agent = analyst(needs_approval=True)
        state = await RunState.from_string(agent, text)
        for item in state.get_interruptions():
            state.approve(item)
        return str((await run(agent, url, state, group_id=conversation)).final_output)

    return asyncio.run(go_on())


async def test_without_a_conversation_it_is_said_what_is_missing(client: torpor.Client, model: Any) -> None:
    model.answers = [response(python("c1", "1"))]
    with pytest.raises(UserError, match="group_id"):
        await run(analyst(client), model.url)


async def test_a_cancelled_run_ends_its_code_and_nothing_else(
    conversation: str, model: Any, client: torpor.Client, started: Callable[[torpor.Machine], None]
) -> None:
    machine = machine_of(client, conversation)
    machine.run("a = 3")
    model.answers = [response(python("c1", "import time\nwhile True: time.sleep(1)"))]
    running = asyncio.ensure_future(run(analyst(client), model.url, group_id=conversation))
    await asyncio.to_thread(started, machine)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert machine.run("a", queue=True).value == "3"
    assert machine.instruction(1).ended_by == "interrupt"


# The sandbox.


@pytest.fixture
async def sandboxes() -> AsyncIterator[TorporSandboxClient]:
    async with TorporSandboxClient() as sandboxes:
        yield sandboxes


@pytest.fixture
async def session(sandboxes: TorporSandboxClient, conversation: str) -> AsyncIterator[SandboxSession]:
    async with await sandboxes.create(options=TorporSandboxClientOptions(conversation)) as session:
        yield session


def coder() -> SandboxAgent[None]:
    manifest = Manifest(entries={"notes.txt": File(content=b"remember 3\n")})
    return SandboxAgent("Coder", default_manifest=manifest)


def sandboxed(sandboxes: TorporSandboxClient, conversation: str) -> dict[str, Any]:
    options = TorporSandboxClientOptions(conversation)
    return {"sandbox": SandboxRunConfig(client=sandboxes, options=options)}


SERVER = "i=0; while true; do i=$((i+1)); echo alive $i; sleep 0.2; done"


async def test_a_sandbox_agents_files_and_commands_are_there_in_the_next_run(
    conversation: str, model: Any, sandboxes: TorporSandboxClient, replaced: Any, client: torpor.Client
) -> None:
    model.answers = [
        response(call("c1", "exec_command", cmd="cat notes.txt; echo more >> notes.txt; pwd")),
        response(call("c2", "exec_command", cmd=SERVER, yield_time_ms=500)),
        DONE,
    ]
    result = await run(coder(), model.url, **sandboxed(sandboxes, conversation))
    assert result.final_output == "done"
    assert "remember 3\n/home/user" in outputs(model.requests[1])["c1"]
    said = outputs(model.requests[2])["c2"]
    assert "alive 1" in said
    (number,) = [line.rsplit(" ", 1)[1] for line in said.splitlines() if "session ID" in line]
    model.answers = [
        response(call("c3", "exec_command", cmd="cat notes.txt"), call("c4", "write_stdin", session_id=int(number))),
        DONE,
    ]
    client.machine(conversation).sleep()
    assert await asyncio.to_thread(replaced, conversation, model.url, function="next_run") == "done"
    read = outputs(model.requests[-1])
    assert "remember 3\nmore\n" in read["c3"]
    assert "alive" in read["c4"]
    assert f"session ID {number}" in read["c4"]


def next_run(conversation: str, url: str) -> str:
    """The next run in another process."""

    async def go_on() -> str:
        async with TorporSandboxClient() as sandboxes:
            return str((await run(coder(), url, **sandboxed(sandboxes, conversation))).final_output)

    return asyncio.run(go_on())


async def test_python_and_the_sandbox_are_one_machine(
    conversation: str, model: Any, sandboxes: TorporSandboxClient, client: torpor.Client
) -> None:
    agent = SandboxAgent[None]("Coder", tools=[python_tool(client)])
    model.answers = [
        response(python("c1", "open('a.txt', 'w').write('3')")),
        response(call("c2", "exec_command", cmd="cat a.txt")),
        DONE,
    ]
    await run(agent, model.url, group_id=conversation, **sandboxed(sandboxes, conversation))
    assert outputs(model.requests[2])["c2"].endswith("\n3")


async def test_the_model_is_told_of_a_recovery_by_its_own_command(
    conversation: str, model: Any, sandboxes: TorporSandboxClient, recovered: Callable[[], None]
) -> None:
    await asyncio.to_thread(recovered)
    model.answers = [
        response(call("c1", "exec_command", cmd="cat notes.txt")),
        response(call("c2", "exec_command", cmd="cat notes.txt")),
        DONE,
    ]
    await run(coder(), model.url, **sandboxed(sandboxes, conversation))
    read = outputs(model.requests[2])
    assert "remember 3\n[notice] " in read["c1"]
    assert "[notice]" not in read["c2"]


async def test_commands_end_as_in_a_shell(session: SandboxSession) -> None:
    done = await session.exec("echo out; echo err >&2; exit 3")
    assert (done.stdout, done.stderr, done.exit_code) == (b"out\n", b"err\n", 3)
    assert (await session.exec("kill -9 $$")).exit_code == 137
    assert (await session.exec("no-such-program", shell=False)).exit_code == 127
    assert (await session.exec("no-such-program")).exit_code == 127
    with pytest.raises(ExecTimeoutError):
        await session.exec("sleep 600", timeout=1)
    with pytest.raises(ValueError, match="one user"):
        await session.exec("true", user="root")


def find(machine: torpor.Machine, what: str) -> torpor.Command | None:
    """The command that has this text in it, if it runs or has run."""
    begun = [info.seq for info in machine.commands.list() if what in str(info.command) and info.state != "waiting"]
    return machine.commands.get(begun[0]) if begun else None


async def test_a_cancelled_command_is_ended_and_no_other(
    session: SandboxSession, client: torpor.Client, conversation: str
) -> None:
    machine = client.machine(conversation)
    other = machine.commands.start("sleep 600")
    for call, what in (
        (session.exec("sleep 601"), "sleep 601"),
        (session.pty_exec_start("sleep 602", yield_time_s=30), "sleep 602"),
    ):
        running = asyncio.ensure_future(call)
        while (command := await asyncio.to_thread(find, machine, what)) is None:  # noqa: ASYNC110 - the machine's
            await asyncio.sleep(0.05)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert command.wait().signal == "SIGKILL"
    assert not other.done()


async def test_a_command_that_is_cancelled_on_its_way_is_ended_too(
    session: SandboxSession, client: torpor.Client, conversation: str
) -> None:
    running = asyncio.ensure_future(session.pty_exec_start("sleep 603"))
    while "start of a command" not in {task.get_name() for task in asyncio.all_tasks()}:  # noqa: ASYNC110 - theirs
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    machine = client.machine(conversation)
    command = find(machine, "sleep 603")
    assert command is not None
    assert command.wait().signal == "SIGKILL"


async def test_a_terminal_takes_input_and_tells_how_it_ended(session: SandboxSession) -> None:
    begun = await session.pty_exec_start("read name; echo hello $name; exit 4", tty=True, yield_time_s=0.25)
    assert begun.process_id is not None
    done = await session.pty_write_stdin(session_id=begun.process_id, chars="Ada\n", yield_time_s=10)
    assert (done.process_id, done.exit_code) == (None, 4)
    assert b"hello Ada" in done.output
    endless = await session.pty_exec_start("sleep 600", tty=True, yield_time_s=0.25)
    assert endless.process_id is not None
    ended = await session.pty_write_stdin(session_id=endless.process_id, chars="\x03", yield_time_s=10)
    assert ended.exit_code == 130
    with pytest.raises(PtySessionNotFoundError):
        await session.pty_write_stdin(session_id=99_999, chars="")
    deaf = await session.pty_exec_start("sleep 600", yield_time_s=0.25)
    assert deaf.process_id is not None
    with pytest.raises(RuntimeError, match="stdin"):
        await session.pty_write_stdin(session_id=deaf.process_id, chars="x")


async def test_files_are_read_and_written_inside_the_workspace(session: SandboxSession) -> None:
    data = bytes(range(256)) * 20_000
    await session.write(Path("deep/er/data.bin"), io.BytesIO(data))
    assert (await session.read(Path("deep/er/data.bin"))).read() == data
    assert await session.read_bounded(Path("deep/er/data.bin"), max_bytes=5) == data[:5]
    await session.mkdir("other", parents=True)
    await session.mv("deep/er/data.bin", "other/ünï codé")
    assert [Path(entry.path).name for entry in await session.ls("other")] == ["ünï codé"]
    await session.rm("deep", recursive=True)
    with pytest.raises(WorkspaceReadNotFoundError):
        await session.read(Path("deep/er/data.bin"))
    with pytest.raises(WorkspaceArchiveReadError):
        await session.read(Path("other"))
    with pytest.raises(ValueError, match="one user"):
        await session.read(Path("other/ünï codé"), user="root")
    with pytest.raises(InvalidManifestPathError):
        await session.read(Path("../../etc/passwd"))
    await session.exec("ln -s /etc out")
    with pytest.raises(InvalidManifestPathError):
        await session.read(Path("out/passwd"))
    with pytest.raises(InvalidManifestPathError):
        await session.write(Path("out/new"), io.BytesIO(b""))


async def test_a_patch_changes_a_file(session: SandboxSession) -> None:
    await session.write(Path("a.py"), io.BytesIO(b"a = 3\n"))
    await session.apply_patch({"type": "update_file", "path": "a.py", "diff": "@@\n-a = 3\n+a = 8\n"})
    assert (await session.read(Path("a.py"))).read() == b"a = 8\n"


async def test_a_session_goes_on_from_its_state_and_its_manifest_is_written_once(
    sandboxes: TorporSandboxClient, conversation: str
) -> None:
    manifest = Manifest(entries={"notes.txt": File(content=b"3")})
    session = await sandboxes.create(options=TorporSandboxClientOptions(conversation), manifest=manifest)
    async with session:
        await session.write(Path("notes.txt"), io.BytesIO(b"8"))
    payload = json.loads(json.dumps(sandboxes.serialize_session_state(session.state)))
    await sandboxes.delete(session)
    for again in (
        await sandboxes.resume(sandboxes.deserialize_session_state(payload)),
        await sandboxes.create(options=TorporSandboxClientOptions(conversation), manifest=manifest),
    ):
        async with again:
            assert await again.running()
            assert (await again.read(Path("notes.txt"))).read() == b"8"
    changed = Manifest(entries={"notes.txt": File(content=b"9")})
    async with await sandboxes.create(options=TorporSandboxClientOptions(conversation), manifest=changed) as other:
        assert (await other.read(Path("notes.txt"))).read() == b"9"


async def test_a_workspace_moves_to_another_machine_by_a_snapshot(
    sandboxes: TorporSandboxClient, conversation: str, tmp_path: Path, client: torpor.Client
) -> None:
    snapshot = LocalSnapshot(id="s", base_path=tmp_path)
    first = await sandboxes.create(options=TorporSandboxClientOptions(conversation), snapshot=snapshot)
    async with first:
        await first.write(Path("deep/notes.txt"), io.BytesIO(b"3"))
    other = f"{conversation}-other"
    async with await sandboxes.create(options=TorporSandboxClientOptions(other), snapshot=snapshot) as second:
        assert (await second.read(Path("deep/notes.txt"))).read() == b"3"
    client.machine(other).delete()


# What the documentation shows.


def test_the_guide(programs: Any, model: Any) -> None:
    model.answers = [
        response(python("agents_guide_1", "first = [2, 3, 5]; first")),
        lambda request: response(saying(outputs(request)["agents_guide_1"])),
        response(python("agents_guide_2", "open('first', 'w').write(str(first))")),
        response(call("agents_guide_3", "exec_command", cmd="cat first")),
        lambda request: response(saying(outputs(request)["agents_guide_3"].splitlines()[-1])),
    ]
    assert programs.guide("openai-agents").splitlines() == ["[2, 3, 5]", "[2, 3, 5]"]


def test_the_docstrings_examples(programs: Any, model: Any) -> None:
    model.answers = [response(python("agents_docstring", "3 + 5")), DONE]
    programs.docstring(torpor.tools.openai_agents)
    assert outputs(model.requests[-1]) == {"agents_docstring": "8"}
    programs.docstring(
        python_tool, before="from agents import Agent; from torpor.tools.openai_agents import python_tool"
    )
    before = """
from agents import RunConfig, Runner
from agents.run_config import SandboxRunConfig
from agents.sandbox import SandboxAgent
from torpor.tools.openai_agents import TorporSandboxClient, TorporSandboxClientOptions
agent = SandboxAgent("Coder")
"""
    model.answers = [response(call("agents_sandbox", "exec_command", cmd="echo 2 3 5")), DONE]
    programs.docstring(TorporSandboxClient, before=before)
    assert outputs(model.requests[-1])["agents_sandbox"].splitlines()[-1] == "2 3 5"
