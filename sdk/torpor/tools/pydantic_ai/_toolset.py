"""The tool `python` for agents of Pydantic AI."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import TypeAdapter
from pydantic_ai import BinaryContent, ModelRetry, RunContext, ToolDefinition, ToolReturn
from pydantic_ai.exceptions import ToolFailed
from pydantic_ai.messages import InstructionPart
from pydantic_ai.tools import AgentDepsT
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool
from pydantic_core import SchemaValidator
from typing_extensions import NotRequired, TypedDict

from ..._async_client import AsyncClient
from ..._async_machine import AsyncMachine
from ..._client import Client
from ..._machine import Machine
from ..._reading import DEFAULT_TOKENS
from .._binding import default_client
from .._python import PythonTool
from .._words import DESCRIPTION, INSTRUCTIONS, PARAMETERS


class _Arguments(TypedDict):
    code: str
    timeout_seconds: NotRequired[float | None]


_ARGUMENTS = SchemaValidator(TypeAdapter(_Arguments).core_schema)


class PythonToolset(AbstractToolset[AgentDepsT]):
    """Runs a model's code on the machine of the conversation; text and figures come back in the tool's result.

    The conversation is that of the run: `conversation_id`, which Pydantic AI keeps in the message history. The id of
    the tool call is its idempotency key: when a run is resumed, or a durable step is tried again, code that ran is not
    run again. An error of the code asks the model to try again; when it has done that as often as the tool's retries
    allow, it is told as a failure, which ends no run. `metadata` of the result is a dict with `machine`, the machine's
    own name, and `seq`, the instruction's number. The toolset's instructions tell the agent what the machine is.
    """

    def __init__(
        self,
        machine: Machine | AsyncMachine | Client | AsyncClient | None = None,
        conversation: str | Callable[[RunContext[AgentDepsT]], str] | None = None,
        *,
        timeout_seconds: float | None = None,
        limit_tokens: int = DEFAULT_TOKENS,
        max_retries: int | None = None,
        instructions: bool = True,
        id: str | None = None,
    ) -> None:
        """For whatever conversation it is called in, or for one machine.

        Args:
            machine: A client, by default `Client()`, which is used in threads; an `AsyncClient` spares them. Or one
                machine, whatever the conversation is.
            conversation: With a client, another id than the run's `conversation_id`, or a function of the run's
                context: `lambda context: context.deps.user` gives each user a machine.
            timeout_seconds: After so much running time code is ended, unless the model asks for another time.
            limit_tokens: About how long an answer may be; of what is longer, beginning and end are kept.
            max_retries: How many errors in a row ask to try again; by default as many as the agent's tools.
            instructions: Whether the agent is told what the machine is.
            id: What durable execution calls it.
        """
        self._owner = machine
        self._conversation = conversation
        self._timeout_seconds = timeout_seconds
        self._limit_tokens = limit_tokens
        self._max_retries = max_retries
        self._instructions = instructions
        self._id = id

    @property
    def id(self) -> str | None:
        """What durable execution calls it."""
        return self._id

    async def get_instructions(self, ctx: RunContext[AgentDepsT]) -> InstructionPart | None:
        """The paragraph that teaches a model what the machine is."""
        return InstructionPart(INSTRUCTIONS) if self._instructions else None

    async def get_tools(self, ctx: RunContext[AgentDepsT]) -> dict[str, ToolsetTool[AgentDepsT]]:
        """The tool `python`. Calls of one answer run one after the other, in their order."""
        tool = ToolsetTool(
            toolset=self,
            tool_def=ToolDefinition(
                name=PythonTool.name, parameters_json_schema=PARAMETERS, description=DESCRIPTION, sequential=True
            ),
            max_retries=ctx.max_retries if self._max_retries is None else self._max_retries,
            args_validator=_ARGUMENTS,
        )
        return {PythonTool.name: tool}

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[AgentDepsT], tool: ToolsetTool[AgentDepsT]
    ) -> ToolReturn[Any]:
        """Run the code. Raises `ModelRetry`, or at the last retry `ToolFailed`, for an error that has no figures."""
        rendered = await self._tool(ctx).acall(tool_args, call_id=ctx.tool_call_id)
        if rendered.is_error and not rendered.images:  # an exception of theirs has no place for figures
            raise ToolFailed(rendered.text) if ctx.last_attempt else ModelRetry(rendered.text)
        figures = [BinaryContent(picture, media_type="image/png") for picture in rendered.images]
        return ToolReturn(
            [rendered.text, *figures] if figures else rendered.text,
            metadata={"machine": rendered.machine_name, "seq": rendered.seq},
        )

    def _tool(self, ctx: RunContext[AgentDepsT]) -> PythonTool:
        conversation = self._conversation(ctx) if callable(self._conversation) else self._conversation
        return PythonTool(
            self._owner or default_client(),
            conversation or ctx.conversation_id,
            timeout_seconds=self._timeout_seconds,
            limit_tokens=self._limit_tokens,
        )
