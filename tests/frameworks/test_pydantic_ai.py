"""Pydantic AI's published package with its own scripted models, and a machine on real gVisor."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic_ai import Agent, AgentRunResult, BinaryContent, RunContext
from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.workspaces import Workspace, WorkspaceBackend, WorkspaceRef
from pydantic_ai.workspaces.conformance import WorkspaceBackendSuite

import torpor
from torpor.tools import INSTRUCTIONS, machine_of
from torpor.tools.pydantic_ai import MachineWorkspace, MachineWorkspaceBackend, PythonToolset

PLOT = "a = 3\nimport matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.show()\na"


def scripted(*codes: str, first_id: int = 1) -> FunctionModel:
    """A model that asks for each of these codes in turn, and then says that it is done."""
    left = list(codes)

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if not left:
            return ModelResponse([TextPart("Done.")])
        call_id = f"call_{first_id + len(codes) - len(left)}"
        return ModelResponse([ToolCallPart("python", {"code": left.pop(0)}, tool_call_id=call_id)])

    return FunctionModel(answer)


def returned(messages: list[ModelMessage]) -> list[ToolReturnPart]:
    """What the tool returned, in order."""
    return [part for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]


def agent(*codes: str, first_id: int = 1, **settings: Any) -> Agent[None, str]:
    return Agent(scripted(*codes, first_id=first_id), toolsets=[PythonToolset[None](**settings)])


def turn(kept: Path, conversation: str, model: FunctionModel) -> list[ToolReturnPart]:
    """A turn of a conversation that is kept in a file; all that the tool returned in it."""
    history = ModelMessagesTypeAdapter.validate_json(kept.read_bytes()) if kept.exists() else None
    agent = Agent(model, toolsets=[PythonToolset[None]()])
    known: Any = {} if history else {"conversation_id": conversation}  # from then on the history knows it
    with asyncio.Runner() as runner:
        result = runner.run(agent.run("Go on.", message_history=history, **known))
    kept.write_bytes(result.all_messages_json())
    return returned(result.all_messages())


def test_a_conversation_goes_on_after_its_machine_slept_and_its_process_was_replaced(
    tmp_path: Path, conversation: str, client: torpor.Client, later: Callable[..., str]
) -> None:
    kept = tmp_path / "messages.json"
    (plotted,) = turn(kept, conversation, scripted(PLOT))
    text, figure = plotted.content
    assert text == "[a figure]\n3"
    assert isinstance(figure, BinaryContent)
    assert figure.media_type == "image/png"
    assert figure.data.startswith(b"\x89PNG")
    assert plotted.metadata == {"machine": machine_of(client, conversation).detail().name, "seq": 0}
    assert later(str(kept)) == "success retried success: 8"


def later(conversation: str, kept: str) -> str:
    """The same conversation in another process."""
    parts = turn(Path(kept), conversation, scripted("a + undefined", "a + 5", first_id=2))
    assert "NameError: name 'undefined' is not defined" in str(parts[1].content)
    return f"{' '.join(part.outcome for part in parts)}: {parts[-1].content}"


async def test_a_call_that_was_asked_for_before_a_process_died_is_run_once(
    conversation: str, client: torpor.Client
) -> None:
    """A history that ends in a tool call is how Pydantic AI resumes; here it is resumed twice."""
    asked = ToolCallPart("python", {"code": "n = globals().get('n', 0) + 1; n"}, tool_call_id="call_1")
    history = [ModelRequest([UserPromptPart("Count.")]), ModelResponse([asked])]
    for _ in range(2):
        result = await agent(first_id=2).run(message_history=history, conversation_id=conversation)
        (counted,) = returned(result.all_messages())
        assert counted.content == "1"
    assert machine_of(client, conversation).run("n").value == "1"


async def test_errors_end_no_run_however_many_they_are(conversation: str) -> None:
    result = await agent(*(f"1 / 0 # {n}" for n in range(5)), "3 + 5").run("Go on.", conversation_id=conversation)
    *errors, last = returned(result.all_messages())
    assert result.output == "Done."
    assert [error.outcome for error in errors] == ["retried", *["failed"] * 4]
    assert all("ZeroDivisionError: division by zero" in str(error.content) for error in errors)
    assert (last.content, last.outcome) == ("8", "success")


async def test_figures_before_an_error_are_shown_with_it(conversation: str) -> None:
    result = await agent(f"{PLOT}\n1 / 0").run("Go on.", conversation_id=conversation)
    (failed,) = returned(result.all_messages())
    text, figure = failed.content
    assert "ZeroDivisionError" in text
    assert isinstance(figure, BinaryContent)


async def test_arguments_that_do_not_fit_ask_to_try_again(conversation: str) -> None:
    wrong = ToolCallPart("python", {"code": 7}, tool_call_id="call_1")
    history = [ModelRequest([UserPromptPart("Go on.")]), ModelResponse([wrong])]
    result = await agent("3 + 5", first_id=2).run(message_history=history, conversation_id=conversation)
    assert [part.outcome for part in returned(result.all_messages())] == ["retried", "success"]


async def test_a_model_is_told_what_the_machine_is_and_its_tool(conversation: str) -> None:
    model = TestModel(call_tools=[])
    await Agent(model, toolsets=[PythonToolset[None]()]).run("Go on.", conversation_id=conversation)
    parameters = model.last_model_request_parameters
    assert parameters is not None
    assert [tool.name for tool in parameters.function_tools] == ["python"]
    assert INSTRUCTIONS in [part.content for part in parameters.instruction_parts or []]


async def test_a_function_of_the_context_says_whose_machine_it_is(conversation: str, client: torpor.Client) -> None:
    def user(context: RunContext[str]) -> str:
        return f"{conversation}-{context.deps}"

    for name in ("ada", "grace"):
        toolset = PythonToolset[str](client, user)
        await Agent(scripted(f"who = {name!r}"), deps_type=str, toolsets=[toolset]).run("Go on.", deps=name)
    assert machine_of(client, f"{conversation}-ada").run("who").value == "'ada'"
    assert machine_of(client, f"{conversation}-grace").run("who").value == "'grace'"


async def test_calls_of_one_answer_run_in_their_order(conversation: str, client: torpor.Client) -> None:
    calls = [
        ToolCallPart("python", {"code": f"said = [*globals().get('said', []), {n}]"}, tool_call_id=f"call_{n}")
        for n in range(5)
    ]
    history = [ModelRequest([UserPromptPart("Go on.")]), ModelResponse(calls)]
    await agent(first_id=9).run(message_history=history, conversation_id=conversation)
    assert machine_of(client, conversation).run("said").value == "[0, 1, 2, 3, 4]"


async def test_many_conversations_at_once_have_each_their_own_machine(conversation: str) -> None:
    async with torpor.AsyncClient() as client:
        toolset = PythonToolset[None](client)

        async def ask(number: int) -> str:
            model = scripted(f"a = {number}", "a")
            result = await Agent(model, toolsets=[toolset]).run("Go on.", conversation_id=f"{conversation}-{number}")
            return str(returned(result.all_messages())[-1].content)

        assert await asyncio.gather(*map(ask, range(6))) == [str(number) for number in range(6)]


async def test_a_cancelled_run_ends_its_code_and_nothing_else(
    conversation: str, client: torpor.Client, started: Callable[[torpor.Machine], None]
) -> None:
    machine = machine_of(client, conversation)
    machine.run("a = 3")
    endless = agent("import time\nwhile True: time.sleep(1)")
    running = asyncio.ensure_future(endless.run("Go on.", conversation_id=conversation))
    await asyncio.to_thread(started, machine)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert machine.run("a", queue=True).value == "3"
    assert machine.instruction(1).ended_by == "interrupt"


class TestWorkspace(WorkspaceBackendSuite):
    """Pydantic AI's own rules for workspaces."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    def unbound(self) -> torpor.AsyncClient:
        """A client that keeps no connection, and so belongs to no event loop."""
        limits = httpx2.Limits(max_keepalive_connections=0)
        return torpor.AsyncClient(transport=httpx2.AsyncHTTPTransport(limits=limits))

    @pytest.fixture
    def backend(self, unbound: torpor.AsyncClient) -> MachineWorkspaceBackend:
        return MachineWorkspaceBackend(unbound, "pydantic-ai-conformance")

    @pytest.fixture
    def fresh_backend(self, unbound: torpor.AsyncClient) -> Callable[[], MachineWorkspaceBackend]:
        return lambda: MachineWorkspaceBackend(unbound)

    @pytest.fixture
    def attach_backend(self, unbound: torpor.AsyncClient) -> Callable[[WorkspaceRef], MachineWorkspaceBackend]:
        return lambda ref: MachineWorkspaceBackend(unbound, ref=ref)

    @pytest.fixture
    def destroy_environment(self, unbound: torpor.AsyncClient) -> Callable[[WorkspaceBackend], Awaitable[None]]:
        async def destroy(backend: WorkspaceBackend) -> None:
            assert backend.ref is not None
            await unbound.machine(backend.ref.id).delete()

        return destroy


async def run(model: FunctionModel, **asked: Any) -> AgentRunResult[str]:
    """A run of an agent whose output is what its workspace has in `note.txt`."""
    async with torpor.AsyncClient() as client:
        workspace, toolset = MachineWorkspace[None](client), PythonToolset[None](client)
        agent = Agent(model, toolsets=[toolset], capabilities=[workspace])

        @agent.output_validator
        async def read(context: RunContext[None], output: str) -> str:
            return await context.workspace.read_text("note.txt")

        return await agent.run("Go on.", **asked)


def noted(kept: Path, conversation: str, model: FunctionModel) -> AgentRunResult[str]:
    """A turn of such an agent's, of a conversation that is kept in a file."""
    history = ModelMessagesTypeAdapter.validate_json(kept.read_bytes()) if kept.exists() else None
    known: Any = {"message_history": history} if history else {"conversation_id": conversation}
    with asyncio.Runner() as runner:
        result = runner.run(run(model, **known))
    kept.write_bytes(result.all_messages_json())
    return result


def test_a_conversation_has_one_machine_for_its_python_and_its_workspace(
    tmp_path: Path, conversation: str, client: torpor.Client, later: Callable[..., str]
) -> None:
    """Written by the agent's Python, read in its workspace; and there again for what comes later."""
    kept = tmp_path / "messages.json"
    first = noted(kept, conversation, scripted("said = 'milk'; open('note.txt', 'w').write(said)"))
    assert first.output == "milk"
    name = machine_of(client, conversation).detail().name
    assert first.response.workspace_ref == WorkspaceRef(provider="torpor", id=name)
    assert later(str(kept), function="noted_later") == "milk, bread"
    assert noted(kept, conversation, scripted()).output == "milk, bread"


def noted_later(conversation: str, kept: str) -> str:
    """The same conversation in another process."""
    code = "open('note.txt', 'w').write(f'{said}, bread')"
    return noted(Path(kept), conversation, scripted(code, first_id=2)).output


async def test_a_workspace_s_command_tells_of_a_recovery_and_its_files_do_not(
    conversation: str, recovered: Callable[[], None]
) -> None:
    await asyncio.to_thread(recovered)
    async with torpor.AsyncClient() as client:
        workspace = Workspace(MachineWorkspaceBackend(client, conversation))
        await workspace.write_text("note.txt", "milk")
        assert await workspace.read_text("note.txt") == "milk"
        assert [entry.name for entry in await workspace.list_dir(".") if not entry.name.startswith(".")] == ["note.txt"]
        told, again = [await workspace.run("cat note.txt; echo err >&2", shell=True) for _ in range(2)]
    assert (told.stdout, again.stdout) == ("milk", "milk")
    assert told.stderr.startswith("[notice] ")
    assert told.stderr.endswith("\nerr\n")
    assert again.stderr == "err\n"


def test_the_guide(guide: Callable[..., str]) -> None:
    count, last = {"code": "primes = [2, 3, 5]; len(primes)"}, {"code": "primes[-1]"}
    write = {"code": "open('primes.txt', 'w').write('2\\n3\\n5\\n')"}
    assert guide("pydantic-ai", count, last, write).split() == ["3", "5", "6:", "3", "primes.txt"]


def test_the_docstrings_examples(programs: Any) -> None:
    programs.docstring(torpor.tools.pydantic_ai, {"code": "primes = [2, 3, 5]; len(primes)"})
    before = """
import torpor
from pydantic_ai import Agent
from torpor.tools.pydantic_ai import MachineWorkspace, PythonToolset
model, client = "anthropic:claude-sonnet-4-5", torpor.AsyncClient()
"""
    after = """
@agent.output_validator
async def read(context, output):
    return await context.workspace.read_text("note.txt")

print((await agent.run("Go on.", conversation_id="thread-42")).output)
await client.close()
"""
    write = {"code": "open('note.txt', 'w').write('milk')"}
    assert programs.docstring(MachineWorkspace, write, before=before, after=after).strip() == "milk"
