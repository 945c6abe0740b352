"""LlamaIndex: the tool `python`, on the machine of the context that an agent runs in.

>>> from llama_index.core.agent.workflow import FunctionAgent
>>> from llama_index.core.workflow import Context
>>> from torpor.tools.llama_index import PythonToolSpec
>>> agent = FunctionAgent(tools=PythonToolSpec().to_tool_list(), llm=llm)
>>> context = Context(agent)
>>> await agent.run("Plot sin(x).", ctx=context)
"""

from __future__ import annotations

import uuid
from typing import Any

from llama_index.core.base.llms.types import ContentBlock, ImageBlock, TextBlock
from llama_index.core.tools import FunctionTool, ToolMetadata, ToolOutput
from llama_index.core.tools.tool_spec.base import SPEC_FUNCTION_TYPE, BaseToolSpec
from llama_index.core.workflow import Context
from pydantic import BaseModel, Field
from workflows.runtime.types.results import StepWorkerStateContextVar

from .._async_client import AsyncClient
from .._async_machine import AsyncMachine
from .._client import Client
from .._machine import Machine
from .._reading import DEFAULT_TOKENS
from ._binding import default_client
from ._python import PythonTool
from ._rendering import Rendered
from ._words import DESCRIPTION, PARAMETERS

CONVERSATION = "torpor_conversation"
"""Under which a context's store has the id of its conversation."""

_WORDS = PARAMETERS["properties"]


class Arguments(BaseModel):
    """What a model gives to the tool."""

    code: str = Field(description=_WORDS["code"]["description"])
    timeout_seconds: float | None = Field(default=None, description=_WORDS["timeout_seconds"]["description"])


class PythonToolSpec(BaseToolSpec):
    """Runs a model's code on the machine of the conversation; text and figures come back as blocks.

    A conversation is a workflow's context: the name of its machine is kept in its store, so that a context which is
    restored, in another process or years later, has its machine again. The id of the tool call is its idempotency key:
    when a restored context repeats a step, code that ran is not run again. `raw_output` of the tool's output is a dict
    with `machine`, the machine's own name, and `seq`, the instruction's number.
    """

    spec_functions: list[SPEC_FUNCTION_TYPE] = [("python", "apython")]  # noqa: RUF012 - as the base class has it

    def __init__(
        self,
        machine: Machine | AsyncMachine | Client | AsyncClient | None = None,
        conversation: str | None = None,
        *,
        timeout_seconds: float | None = None,
        limit_tokens: int = DEFAULT_TOKENS,
    ) -> None:
        """For whatever context it is called in, or for one machine.

        Args:
            machine: A client, by default `Client()`, which agents use in threads; an `AsyncClient` spares them. Or one
                machine, whatever the context is.
            conversation: With a client, the id of the conversation, whatever the context is.
            timeout_seconds: After so much running time code is ended, unless the model asks for another time.
            limit_tokens: About how long an answer may be; of what is longer, beginning and end are kept.
        """
        self._owner = machine
        self._conversation = conversation
        self._timeout_seconds = timeout_seconds
        self._limit_tokens = limit_tokens

    def python(self, code: str, timeout_seconds: float | None = None) -> list[ContentBlock]:
        """Run code on the machine of the conversation that the spec was made for."""
        return blocks_of(self.run({"code": code, "timeout_seconds": timeout_seconds}))

    async def apython(self, code: str, timeout_seconds: float | None = None) -> list[ContentBlock]:
        """The asynchronous twin."""
        return blocks_of(await self.arun({"code": code, "timeout_seconds": timeout_seconds}))

    def to_tool_list(
        self,
        spec_functions: list[SPEC_FUNCTION_TYPE] | None = None,
        func_to_metadata_mapping: dict[str, ToolMetadata] | None = None,
    ) -> list[FunctionTool]:
        """The tool `python`, with a context's machine, call ids and errors marked as such."""
        return [_PythonFunction(self, (func_to_metadata_mapping or {}).get(PythonTool.name))]

    def run(self, arguments: dict[str, Any]) -> Rendered:
        """Do what a model asks for."""
        tool = self._tool(self._owner or default_client(), self._conversation)
        return tool.call(arguments, call_id=_call_id())

    async def arun(self, arguments: dict[str, Any], context: Context[Any] | None = None) -> Rendered:
        """The asynchronous twin; with a context, on its machine."""
        owner = self._owner or default_client()
        conversation = self._conversation
        if conversation is None and context is not None and isinstance(owner, Client | AsyncClient):
            conversation = await _conversation_of(context)
        return await self._tool(owner, conversation).acall(arguments, call_id=_call_id())

    def _tool(self, owner: Machine | AsyncMachine | Client | AsyncClient, conversation: str | None) -> PythonTool:
        if conversation is None and isinstance(owner, Client | AsyncClient):
            raise ValueError(
                "Nothing says whose machine this is: make the spec with `conversation` or with a machine, "
                "or run the tool in an agent's workflow."
            )
        return PythonTool(owner, conversation, timeout_seconds=self._timeout_seconds, limit_tokens=self._limit_tokens)


class _PythonFunction(FunctionTool):
    """The spec's tool. An agent hands it its context, as it does to every function that has a parameter for it."""

    def __init__(self, spec: PythonToolSpec, metadata: ToolMetadata | None) -> None:
        super().__init__(
            fn=spec.python,
            async_fn=spec.apython,
            metadata=metadata or ToolMetadata(DESCRIPTION, PythonTool.name, Arguments),
        )
        self._spec = spec
        self.requires_context = True
        self.ctx_param_name = "ctx"

    def call(self, *args: Any, **kwargs: Any) -> ToolOutput:
        arguments, _ = _asked(args, kwargs)
        return self._output(arguments, self._spec.run(arguments))

    async def acall(self, *args: Any, **kwargs: Any) -> ToolOutput:
        arguments, context = _asked(args, kwargs)
        return self._output(arguments, await self._spec.arun(arguments, context))

    def _output(self, arguments: dict[str, Any], rendered: Rendered) -> ToolOutput:
        return ToolOutput(
            self.metadata.get_name(),
            blocks=blocks_of(rendered),
            raw_input=arguments,
            raw_output={"machine": rendered.machine_name, "seq": rendered.seq},
            is_error=rendered.is_error,
        )


def blocks_of(rendered: Rendered) -> list[ContentBlock]:
    """The text, and the figures behind it."""
    figures = [ImageBlock(image=picture, image_mimetype="image/png") for picture in rendered.images]
    return [TextBlock(text=rendered.text), *figures]


def _asked(positional: tuple[Any, ...], named: dict[str, Any]) -> tuple[dict[str, Any], Context[Any] | None]:
    arguments = dict(zip(Arguments.model_fields, positional, strict=False)) | named
    return arguments, arguments.pop("ctx", None)


async def _conversation_of(context: Context[Any]) -> str:
    async with context.store.edit_state() as state:
        if CONVERSATION not in state:
            state[CONVERSATION] = f"llama-index-{uuid.uuid4().hex}"
        return str(state[CONVERSATION])


def _call_id() -> str | None:
    """The id of the tool call that the running step of a workflow is about; the step alone knows it."""
    step = StepWorkerStateContextVar.get(None)
    return None if step is None else getattr(step.event, "tool_id", None) or None


__all__ = ["PythonToolSpec"]
