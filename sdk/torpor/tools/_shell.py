"""Shell commands of a machine, as the sandbox interfaces of frameworks ask for them."""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

from .._events import Stderr, Stdout
from .._machine import Machine
from .._machine_commands import CommandStream
from .._reading import notices_text
from ._ending import end_command, end_in_thread
from ._exit_codes import exit_code_of

TIMED_OUT: Final = 124


class Executed(NamedTuple):
    """How a command ended."""

    output: str
    """Of stdout and stderr, in the order in which it came, behind the machine's notices."""
    exit_code: int | None
    """As shells have it, 124 after a time-out; None if the machine's process died."""
    truncated: bool
    """Whether it said more than is kept."""


class Shell:
    """Runs commands on a machine, beside whatever else runs there.

    With `notices` the output has those of the machine; without they are left to a later answer.
    """

    def __init__(self, machine: Machine, *, notices: bool) -> None:
        self._machine = machine
        self._notices = notices

    def execute(self, command: str, timeout_seconds: float) -> Executed:
        """Run a shell command. Ctrl-C ends it, and what it has started."""
        stream = self._stream(command, timeout_seconds)
        try:
            return _executed(stream)
        except (KeyboardInterrupt, SystemExit):
            end_command(self._machine, stream)
            raise

    async def aexecute(self, command: str, timeout_seconds: float) -> Executed:
        """The same for asynchronous programs. Cancelled, it ends the command, and what that has started."""
        stream = self._stream(command, timeout_seconds)
        try:
            return await asyncio.to_thread(_executed, stream)
        except asyncio.CancelledError:  # the thread goes on until the command that it waits for has ended
            await end_in_thread(self._machine, stream)
            raise

    def _stream(self, command: str, timeout_seconds: float) -> CommandStream:
        return self._machine.commands.stream(command, timeout_seconds=timeout_seconds, notices=self._notices)


def _executed(stream: CommandStream) -> Executed:
    said = [event.text for event in stream if isinstance(event, Stdout | Stderr)]
    result = stream.result()
    exit_code = TIMED_OUT if result.timed_out else exit_code_of(result)
    if exit_code is None:
        said.append(result.error or "")
    output = notices_text(result.notices) + "".join(said)
    return Executed(output, exit_code, truncated=result.truncated_bytes > 0)
