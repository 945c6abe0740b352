"""Commands that an agent looks after while they run; its session ids are their numbers on the machine."""

from __future__ import annotations

import asyncio
from collections import deque

from agents.sandbox.errors import PtySessionNotFoundError
from agents.sandbox.session.pty_output import collect_pty_output
from agents.sandbox.session.pty_types import (
    PtyExecUpdate,
    clamp_pty_yield_time_ms,
    resolve_pty_write_yield_time_ms,
)

from ..._async_machine import AsyncMachine
from ..._async_machine_commands import AsyncCommand
from ..._command_models import CommandResult
from ..._errors import CommandInputClosed, CommandNotFound, CommandNotRunning, InstructionNotFound
from ..._events import Stderr, Stdout
from ._results import number_of, said_beside

_START_YIELD_SECONDS = 10.0
_LOOK_YIELD_SECONDS = 0.25
_NOT_FOUND = (CommandNotFound, InstructionNotFound)


class _Followed:
    """What a command has said that the agent has not been told yet."""

    def __init__(self, command: AsyncCommand) -> None:
        self.chunks: deque[bytes] = deque()
        self.lock = asyncio.Lock()
        self.notify = asyncio.Event()
        self.reader = asyncio.create_task(self._follow(command), name=f"output of command {command.seq}")

    async def _follow(self, command: AsyncCommand) -> CommandResult:
        try:
            async with command.stream(notices=True) as stream:
                async for event in stream:
                    if isinstance(event, Stdout | Stderr):
                        self.chunks.append(event.text.encode("utf-8", "replace"))
                        self.notify.set()
                result = await stream.result()
            self.chunks.append(said_beside(result))
            return result
        finally:
            self.notify.set()


class Terminals:
    """The commands of a machine that are followed here. Any other can be, by its number, whoever has started it."""

    def __init__(self, machine: AsyncMachine) -> None:
        self._machine = machine
        self._followed: dict[int, _Followed] = {}

    async def write(self, seq: int, chars: str) -> None:
        """Give a command input; without any see to it that its machine is awake, so that it goes on.

        Raises `PtySessionNotFoundError`, and RuntimeError for a command that takes no input.
        """
        try:
            if chars and not self._is_over(seq):
                await self._machine.commands.get(seq).send_stdin(chars)
            elif not chars:
                await self._machine.wake()
        except _NOT_FOUND as error:
            raise PtySessionNotFoundError(session_id=seq, cause=error) from error
        except CommandInputClosed as error:
            raise RuntimeError("stdin is not available for this process") from error
        except CommandNotRunning:
            pass  # it has just ended; what it said last follows

    async def update(
        self, seq: int, yield_seconds: float | None, max_output_tokens: int | None, *, looking: bool | None = None
    ) -> PtyExecUpdate:
        """What a command says within a time. Raises `PtySessionNotFoundError`, `TorporError`.

        `looking`: None just after its start; then whether it is only looked after, without input.
        """
        followed = self._followed.get(seq)
        if followed is None:
            followed = self._followed[seq] = _Followed(self._machine.commands.get(seq))
        default = _START_YIELD_SECONDS if looking is None else _LOOK_YIELD_SECONDS
        milliseconds = int((default if yield_seconds is None else yield_seconds) * 1000)
        output, tokens, closed = await collect_pty_output(
            output_chunks=followed.chunks,
            output_lock=followed.lock,
            output_notify=followed.notify,
            is_done=followed.reader.done,
            yield_time_ms=clamp_pty_yield_time_ms(milliseconds)
            if looking is None
            else resolve_pty_write_yield_time_ms(yield_time_ms=milliseconds, input_empty=looking),
            max_output_tokens=max_output_tokens,
        )
        if not closed:
            return PtyExecUpdate(process_id=seq, output=output, exit_code=None, original_token_count=tokens)
        self._followed.pop(seq, None)
        try:
            result = await followed.reader
        except _NOT_FOUND as error:
            raise PtySessionNotFoundError(session_id=seq, cause=error) from error
        return PtyExecUpdate(process_id=None, output=output, exit_code=number_of(result), original_token_count=tokens)

    async def leave(self) -> None:
        """Follow none any more. They go on."""
        left, self._followed = self._followed, {}
        for followed in left.values():
            followed.reader.cancel()
        await asyncio.gather(*(followed.reader for followed in left.values()), return_exceptions=True)

    def _is_over(self, seq: int) -> bool:
        return seq in self._followed and self._followed[seq].reader.done()
