"""The asynchronous twin of `e2b_sandbox`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import TracebackType

from .._async_client import AsyncClient
from .._async_machine import AsyncMachine
from .._errors import MachineNotFound
from .._events import Display, Stderr, Stdout
from .e2b_async_commands import AsyncCommands, settled
from .e2b_async_files import AsyncFilesystem
from .e2b_cells import (
    RUN_SECONDS,
    OnError,
    OnOutput,
    OnResult,
    check_language,
    endings,
    setting,
    tags_of,
    telling,
)
from .e2b_results import Execution, execution_of


class AsyncSandbox:
    """A machine with E2B's interface for asyncio: as `Sandbox`, awaited. `create` and `connect` make one."""

    default_template = "python"

    def __init__(self, machine: AsyncMachine, at_the_end: AsyncExitStack | None = None) -> None:
        """A machine that is there. `at_the_end` is closed with `async with`."""
        self._machine = machine
        self._at_the_end = at_the_end or AsyncExitStack()
        self.commands: AsyncCommands = AsyncCommands(machine)
        self.files: AsyncFilesystem = AsyncFilesystem(machine)

    @classmethod
    async def create(
        cls,
        template: str | None = None,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
        envs: Mapping[str, str] | None = None,
        *,
        client: AsyncClient | None = None,
    ) -> AsyncSandbox:
        """A new machine. Arguments as for `Sandbox`.

        >>> async with await AsyncSandbox.create() as sandbox:
        ...     execution = await sandbox.run_code("a = 3")
        ...     print((await sandbox.run_code("a + 5")).text)
        8
        """
        async with AsyncExitStack() as stack:
            used = await stack.enter_async_context(AsyncClient()) if client is None else client
            machine = await used.new_machine(tags=tags_of(metadata), template=template)
            if envs:
                (await machine.run(setting(envs), notices=False)).raise_for_error()
            return cls(machine, stack.pop_all())

    @classmethod
    async def connect(
        cls, sandbox_id: str, timeout: float | None = None, *, client: AsyncClient | None = None
    ) -> AsyncSandbox:
        """A machine by its id, asleep or not, however long ago it was made. Raises `MachineNotFound`."""
        async with AsyncExitStack() as stack:
            used = await stack.enter_async_context(AsyncClient()) if client is None else client
            machine = used.machine(sandbox_id, create=False)
            await machine.detail()
            return cls(machine, stack.pop_all())

    @property
    def machine(self) -> AsyncMachine:
        """The machine, with all that Torpor can do with it."""
        return self._machine

    @property
    def sandbox_id(self) -> str:
        """The machine's name."""
        return self._machine.name

    async def run_code(
        self,
        code: str,
        language: str | None = None,
        on_stdout: OnOutput | None = None,
        on_stderr: OnOutput | None = None,
        on_result: OnResult | None = None,
        on_error: OnError | None = None,
        envs: Mapping[str, str] | None = None,
        timeout: float | None = RUN_SECONDS,
        request_timeout: float | None = None,
    ) -> Execution:
        """See `Sandbox`. What is told may be coroutines' functions."""
        check_language(language)
        if envs:
            (await self._machine.run(setting(envs), queue=True, notices=False)).raise_for_error()
        tell = telling(on_stdout, on_stderr, on_result)

        async def show(event: Stdout | Stderr | Display) -> None:
            await settled(None if tell is None else tell(event))

        result = await self._machine.run(
            code, timeout_seconds=timeout or math.inf, queue=True, on_output=show if tell else None
        )
        execution = execution_of(result)
        for call in endings(execution, result.notices, on_stderr, on_result, on_error):
            await settled(call())
        return execution

    async def pause(self) -> bool:
        """Put it to sleep now. Never needed: idle, it falls asleep."""
        await self._machine.sleep()
        return True

    async def is_running(self, request_timeout: float | None = None) -> bool:
        """Whether it is there, asleep or awake: either way, the next call is answered."""
        try:
            await self._machine.detail()
        except MachineNotFound:
            return False
        return True

    async def set_timeout(self, timeout: float) -> None:
        """Nothing: it does not end by itself."""

    async def kill(self) -> bool:
        """Delete it for good; False if it is not there."""
        if not await self.is_running():
            return False
        await self._machine.delete()
        return True

    async def __aenter__(self) -> AsyncSandbox:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async with self._at_the_end:
            await self.kill()

    def __repr__(self) -> str:
        return f"AsyncSandbox({self.sandbox_id!r})"
