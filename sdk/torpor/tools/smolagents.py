"""smolagents: an executor for `CodeAgent`, whose variables are still there in the next run, today or in two years.

>>> from smolagents import CodeAgent
>>> agent = CodeAgent(tools=[], model=model, executor=TorporExecutor(torpor.Client().machine("thread-42")))

Needs `pip install 'torpor[smolagents]'`.
"""

from __future__ import annotations

from typing import Any

from smolagents.local_python_executor import CodeOutput
from smolagents.monitoring import AgentLogger, LogLevel
from smolagents.remote_executors import RemotePythonExecutor
from smolagents.utils import AgentError

from .._machine import Machine
from .._reading import error_text
from ._rendering import render

__all__ = ["TorporExecutor"]


class TorporExecutor(RemotePythonExecutor):
    """Runs an agent's code on a machine. Deleting the agent does nothing to it."""

    def __init__(
        self, machine: Machine, *, timeout_seconds: float | None = None, logger: AgentLogger | None = None
    ) -> None:
        """For one machine; a conversation's is `torpor.tools.machine_of(client, conversation_id)`."""
        super().__init__([], logger or AgentLogger(level=LogLevel.ERROR))
        self.machine = machine
        self._timeout_seconds = timeout_seconds

    def run_code_raise_errors(self, code: str) -> CodeOutput:
        """Run code; its value, and what it said. Raises `AgentError` for an error of the code's."""
        result = self.machine.run(code, timeout_seconds=self._timeout_seconds, queue=True)
        if result.error is not None:
            if result.error.name == self.FINAL_ANSWER_EXCEPTION:
                answer = self._deserialize_final_answer(result.error.message, self.allow_pickle)
                return CodeOutput(output=answer, logs=result.stdout, is_final_answer=True)
            raise AgentError(f"{result.stdout}{error_text(result.error)}", self.logger)
        return CodeOutput(output=_value(result.value, render(result).images), logs=_logs(result), is_final_answer=False)

    def install_packages(self, additional_imports: list[str]) -> list[str]:
        """Nothing: what tools need must be on the machine, which has the usual data libraries."""
        return additional_imports

    def cleanup(self) -> None:
        """Nothing: the machine is always there."""


def _value(value: str | None, images: tuple[bytes, ...]) -> Any:
    if images:
        from io import BytesIO  # noqa: PLC0415

        from PIL import Image  # noqa: PLC0415 - comes with smolagents

        return Image.open(BytesIO(images[-1]))
    return value


def _logs(result: Any) -> str:
    notices = [f"[notice] {notice.message}\n" for notice in result.notices]
    return "".join([result.stdout, result.stderr, *notices])
