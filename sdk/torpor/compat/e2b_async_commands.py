"""The asynchronous twin of `e2b_commands`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping

from .._async_machine import AsyncMachine
from .._async_machine_commands import AsyncCommand, AsyncCommandStream
from .._events import Stderr, Stdout
from .e2b_command_models import CommandResult, OnText, ProcessInfo, checked, processes, told
from .e2b_results import notices_of


async def settled(answer: object) -> None:
    """Wait for what a callback has returned, if there is anything to wait for."""
    if inspect.isawaitable(answer):
        await answer


class AsyncCommandHandle:
    """A command in the background, by its number. What it says is told while it is waited for."""

    def __init__(self, command: AsyncCommand, on_stdout: OnText | None = None, on_stderr: OnText | None = None) -> None:
        self._command = command
        self._tell = told(on_stdout, on_stderr)

    @property
    def pid(self) -> int:
        """The command's number on its machine."""
        return self._command.seq

    async def wait(self) -> CommandResult:
        """How it ended, once it has. Raises `CommandExitException`, `TimeoutException`."""
        return await _followed(self._command.stream(), self._tell)

    async def kill(self) -> bool:
        """SIGKILL it; False if it has ended."""
        if await self._command.done():
            return False
        await self._command.signal("KILL")
        return True

    async def send_stdin(self, data: str | bytes, request_timeout: float | None = None) -> None:
        """Write to its standard input."""
        await self._command.send_stdin(data)

    async def close_stdin(self, request_timeout: float | None = None) -> None:
        """End its standard input."""
        await self._command.close_stdin()

    async def disconnect(self) -> None:
        """Nothing: it is followed only while it is waited for, and runs on."""


class AsyncCommands:
    """Commands of one sandbox, for asyncio. What is told of output may be coroutines' functions."""

    def __init__(self, machine: AsyncMachine) -> None:
        self._machine = machine

    async def run(
        self,
        cmd: str,
        background: bool | None = None,
        envs: Mapping[str, str] | None = None,
        user: str | None = None,
        cwd: str | None = None,
        on_stdout: OnText | None = None,
        on_stderr: OnText | None = None,
        stdin: bool | None = None,
        timeout: float | None = 60,
        request_timeout: float | None = None,
        *,
        retain_output: bool = True,
    ) -> CommandResult | AsyncCommandHandle:
        """See `Commands`."""
        commands = self._machine.commands
        if background:
            command = await commands.start(
                cmd, cwd=cwd, env=envs, stdin_open=bool(stdin), timeout_seconds=timeout or None
            )
            return AsyncCommandHandle(command, on_stdout, on_stderr)
        stream = commands.stream(cmd, cwd=cwd, env=envs, timeout_seconds=timeout or math.inf)
        return await _followed(stream, told(on_stdout, on_stderr), on_stderr)

    async def kill(self, pid: int, request_timeout: float | None = None) -> bool:
        """See `Commands`."""
        return await AsyncCommandHandle(self._machine.commands.get(pid)).kill()

    async def send_stdin(self, pid: int, data: str | bytes, request_timeout: float | None = None) -> None:
        """See `Commands`."""
        await self._machine.commands.get(pid).send_stdin(data)

    async def close_stdin(self, pid: int, request_timeout: float | None = None) -> None:
        """See `Commands`."""
        await self._machine.commands.get(pid).close_stdin()

    async def connect(
        self,
        pid: int,
        timeout: float | None = 60,
        request_timeout: float | None = None,
        on_stdout: OnText | None = None,
        on_stderr: OnText | None = None,
        *,
        retain_output: bool = True,
    ) -> AsyncCommandHandle:
        """See `Commands`."""
        return AsyncCommandHandle(self._machine.commands.get(pid), on_stdout, on_stderr)

    async def list(self, request_timeout: float | None = None) -> list[ProcessInfo]:
        """See `Commands`."""
        return processes(await self._machine.commands.list(limit=0))


async def _followed(
    stream: AsyncCommandStream, tell: Callable[[Stdout | Stderr], object] | None, on_stderr: OnText | None = None
) -> CommandResult:
    async with stream:
        async for event in stream:
            if tell is not None and isinstance(event, Stdout | Stderr):
                await settled(tell(event))
        result = await stream.result()
    if on_stderr is not None:
        for line in notices_of(result.notices):
            await settled(on_stderr(line))
    return checked(result)
