"""smolagents: an executor for `CodeAgent`, whose variables are still there in the next run, today or in two years.

>>> from smolagents import CodeAgent
>>> executor = TorporExecutor(torpor.Client(), conversation="thread-42")
>>> agent = CodeAgent(tools=[], model=model, executor=executor, step_callbacks=[executor.show_figures])

Needs `pip install 'torpor[smolagents]'`.
"""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from typing import Any

from PIL import Image
from smolagents.local_python_executor import CodeOutput
from smolagents.memory import ActionStep
from smolagents.monitoring import AgentLogger, LogLevel
from smolagents.remote_executors import RemotePythonExecutor
from smolagents.utils import AgentError

from .._client import Client
from .._events import png_of
from .._machine import Machine
from .._reading import DEFAULT_TOKENS, notices_text
from .._result import Result
from ._arguments import AskedForOutput, asked
from ._binding import machine_of
from ._ending import end
from ._output import read_on, says_how_to_read_on
from ._rendering import render

__all__ = ["TorporExecutor"]


class TorporExecutor(RemotePythonExecutor):
    """Runs an agent's code on a machine. Deleting the agent does nothing to it."""

    def __init__(
        self,
        machine: Machine | Client,
        conversation: str | None = None,
        *,
        timeout_seconds: float | None = None,
        limit_tokens: int = DEFAULT_TOKENS,
        logger: AgentLogger | None = None,
    ) -> None:
        """For one machine, or with a client for that of a conversation.

        Args:
            machine: The machine, or a client.
            conversation: With a client, the id of the conversation or thread: the same id, the same machine.
            timeout_seconds: After so much running time code is ended.
            limit_tokens: About how much of an output the agent reads; of what is longer, beginning and end.
            logger: The agent's, if errors are to be shown where it shows its own.
        """
        super().__init__([], logger or AgentLogger(level=LogLevel.ERROR))
        if isinstance(machine, Client):
            if conversation is None:
                raise ValueError("With a client, `conversation` says whose machine it is.")
            machine = machine_of(machine, conversation)
        self.machine = machine
        self.figures: tuple[Image.Image, ...] = ()
        """What the code that ran last has shown."""
        self._timeout_seconds = timeout_seconds
        self._limit_tokens = limit_tokens

    def __call__(self, code_action: str) -> CodeOutput:
        """Run the agent's code, and tell it the machine's notices; else as `run_code_raise_errors`."""
        return self._answer(code_action, notices=True)

    def run_code_raise_errors(self, code: str) -> CodeOutput:
        """Run code; its value, and what it said. Raises `AgentError` for an error of the code's.

        smolagents runs its own code with it, such as the agent's tools: the agent is told nothing of what it says.
        """
        return self._answer(code, notices=False)

    def _answer(self, code: str, *, notices: bool) -> CodeOutput:
        self.figures = ()
        wish = asked({"code": code})
        if isinstance(wish, AskedForOutput):
            more = read_on(self.machine.instruction(wish.seq), wish.position, limit_tokens=self._limit_tokens)
            return CodeOutput(output=None, logs=f"{more.text}\n", is_final_answer=False)
        result = self._run(wish.code, notices=notices)
        if result.error is not None and result.error.name == self.FINAL_ANSWER_EXCEPTION:
            # It is a stranger's: `False` has it read as JSON, and never as a pickle.
            answer = self._deserialize_final_answer(result.error.message, allow_pickle=False)
            logs = notices_text(result.notices) + result.stdout
            return CodeOutput(output=answer, logs=logs, is_final_answer=True)
        rest = says_how_to_read_on(result.seq)
        rendered = render(result, limit_tokens=self._limit_tokens, rest=rest)
        self.figures = tuple(Image.open(BytesIO(picture)) for picture in rendered.images)
        if result.error is not None:
            raise AgentError(rendered.text, self.logger)
        # The agent shows the value beside what was said, and cuts that itself.
        said = render(replace(result, value=None, data={}), limit_tokens=self._limit_tokens, rest=rest)
        return CodeOutput(output=self._value(result), logs=f"{said.text}\n", is_final_answer=False)

    def show_figures(self, step: ActionStep, agent: Any = None) -> None:
        """Let the agent's model see the figures of a step: for `step_callbacks` of the agent."""
        if self.figures:
            step.observations_images = [*(step.observations_images or ()), *self.figures]
            self.figures = ()

    def install_packages(self, additional_imports: list[str]) -> list[str]:
        """Nothing: what tools need must be on the machine, which has the usual data libraries."""
        return additional_imports

    def cleanup(self) -> None:
        """Nothing: the machine is always there."""

    def _patch_final_answer_with_exception(self, final_answer_tool: Any) -> None:
        # In an agent's second run smolagents 1.26 would patch it again, which leaves it broken.
        if not hasattr(type(final_answer_tool), "_forward"):
            super()._patch_final_answer_with_exception(final_answer_tool)

    def _run(self, code: str, *, notices: bool) -> Result:
        stream = self.machine.stream(code, timeout_seconds=self._timeout_seconds, queue=True, notices=notices)
        try:
            return stream.result()
        except (KeyboardInterrupt, SystemExit):
            end(self.machine, stream)
            raise

    def _value(self, result: Result) -> Any:
        if self.figures and (result.value is None or png_of(result.data) is not None):
            return self.figures[-1]
        return result.value
