"""Ends what a tool call began that was given up: exactly that, wherever it is."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping

import anyio
import anyio.to_thread

from .._async_machine import AsyncMachine, AsyncRunStream
from .._async_machine_commands import AsyncCommand, AsyncCommandStream
from .._errors import CommandNotRunning, ProtocolError, TorporError
from .._machine import Machine, RunStream
from .._machine_commands import Command, CommandStream
from .._stream import StreamState

PATIENCE_SECONDS = 10.0
_WAIT_SECONDS = 0.2


class _Accepted(Exception):
    """The instruction's number is known, which is all that was asked for."""


class _UntilAccepted(StreamState):
    """The same request as another stream's, left as soon as the answer's headers tell the instruction's number.

    It has the same idempotency key: the server joins it to the same work, whether or not the first one has arrived.
    """

    def __init__(self, state: StreamState) -> None:
        super().__init__(state.machine_name, call=state._call)

    def opened(self, headers: Mapping[str, str]) -> None:
        super().opened(headers)
        raise _Accepted


def end(machine: Machine, stream: RunStream) -> None:
    """Interrupt what a stream follows: what runs, what waits, and what is still on its way to the server.

    For a program that was interrupted itself, which goes on with that whatever comes of this.
    """
    with contextlib.suppress(TorporError):
        machine.interrupt(_number(machine, stream))


def end_command(machine: Machine, stream: CommandStream) -> None:
    """The same for a command, which is killed with all that it has started; for some seconds at most."""
    with contextlib.suppress(TorporError):
        command = machine.commands.get(_number(machine, stream))
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not _killed(command) and not command.done() and time.monotonic() < deadline:
            time.sleep(_WAIT_SECONDS)  # it was accepted, and its machine wakes


async def end_in_thread(machine: Machine, stream: RunStream | CommandStream) -> None:
    """The same for either from a task that is being cancelled, for some seconds at most."""
    with anyio.move_on_after(PATIENCE_SECONDS, shield=True):
        if isinstance(stream, CommandStream):
            await anyio.to_thread.run_sync(end_command, machine, stream, abandon_on_cancel=True)
        else:
            await anyio.to_thread.run_sync(end, machine, stream, abandon_on_cancel=True)


async def end_async(machine: AsyncMachine, stream: AsyncRunStream) -> None:
    """As `end`, for an `AsyncClient`'s machine."""
    with anyio.move_on_after(PATIENCE_SECONDS, shield=True), contextlib.suppress(TorporError):
        await machine.interrupt(await _number_async(machine, stream))


async def end_command_async(machine: AsyncMachine, stream: AsyncCommandStream) -> None:
    """The same for a command, which is killed with all that it has started."""
    with anyio.move_on_after(PATIENCE_SECONDS, shield=True), contextlib.suppress(TorporError):
        await _kill(machine.commands.get(await _number_async(machine, stream)))


async def end_started_async(starting: asyncio.Future[AsyncCommand]) -> None:
    """The same for a command in the background, whose start may still be on its way."""
    with anyio.move_on_after(PATIENCE_SECONDS, shield=True), contextlib.suppress(TorporError):
        await _kill(await starting)


def _number(machine: Machine, stream: RunStream | CommandStream) -> int:
    if stream.seq is not None:
        return stream.seq
    state = _UntilAccepted(stream._state)
    with contextlib.suppress(_Accepted):
        for _ in machine._connection.follow(state):
            pass
    return _told(state)


async def _number_async(machine: AsyncMachine, stream: AsyncRunStream | AsyncCommandStream) -> int:
    if stream.seq is not None:
        return stream.seq
    state = _UntilAccepted(stream._state)
    with contextlib.suppress(_Accepted):
        async for _ in machine._connection.follow(state):
            pass
    return _told(state)


def _told(state: StreamState) -> int:
    if state.seq is None:  # never to be taken for "whatever runs"
        raise ProtocolError("The server did not say the instruction's number.")
    return state.seq


async def _kill(command: AsyncCommand) -> None:
    while not await _killed_async(command) and not await command.done():  # noqa: ASYNC110 - another process has it
        await asyncio.sleep(_WAIT_SECONDS)  # it was accepted, and its machine wakes


def _killed(command: Command) -> bool:
    try:
        command.signal("KILL")
    except CommandNotRunning:
        return False
    return True


async def _killed_async(command: AsyncCommand) -> bool:
    try:
        await command.signal("KILL")
    except CommandNotRunning:
        return False
    return True
