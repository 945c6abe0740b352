"""The asynchronous twin of `e2b_sandbox`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .._async_client import AsyncClient
from .._async_machine import AsyncMachine
from .._errors import MachineNotFound, SnapshotNotFound
from .._events import Display, Stderr, Stdout
from .e2b_async_commands import AsyncCommands, settled
from .e2b_async_files import AsyncFilesystem
from .e2b_cells import RUN_SECONDS, OnError, OnOutput, OnResult, check_language, endings, setting, telling
from .e2b_either import on_either
from .e2b_options import AsyncOptions, check_options, own_key, refuse, seconds
from .e2b_pages import AsyncSandboxPaginator, AsyncSnapshotPaginator
from .e2b_results import Execution, execution_of
from .e2b_sandbox_models import (
    SandboxBase,
    SandboxInfo,
    SandboxQuery,
    SavedState,
    SnapshotInfo,
    chosen,
    current,
    info_of,
    origin_of,
    pinned,
    saved_state,
    tags_of,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack


class AsyncSandbox(SandboxBase[AsyncMachine]):
    """A machine with E2B's interface for asyncio: as `Sandbox`, awaited. `create` and `connect` make one."""

    commands: AsyncCommands
    files: AsyncFilesystem

    def __init__(
        self, machine: AsyncMachine, at_the_end: AsyncExitStack | None = None, options: AsyncOptions | None = None
    ) -> None:
        """A machine that is there. `at_the_end` is closed with `async with`; forks are asked for with `options`."""
        super().__init__(machine)
        self._at_the_end = at_the_end or AsyncExitStack()
        self._options: AsyncOptions = options or {}
        self.commands = AsyncCommands(machine)
        self.files = AsyncFilesystem(machine)

    @classmethod
    async def create(
        cls,
        template: str | None = None,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
        envs: Mapping[str, str] | None = None,
        secure: bool | None = None,
        allow_internet_access: bool | None = None,
        mcp: Any = None,
        network: Any = None,
        iam: Any = None,
        lifecycle: Any = None,
        volume_mounts: Any = None,
        logger: Any = None,
        idempotency_key: str | None = None,
        **options: Unpack[AsyncOptions],
    ) -> AsyncSandbox:
        """A new machine. Arguments as for `Sandbox`.

        >>> async with await AsyncSandbox.create() as sandbox:
        ...     execution = await sandbox.run_code("a = 3")
        ...     print((await sandbox.run_code("a + 5")).text)
        8
        """
        refuse(mcp=mcp, iam=iam, volume_mounts=volume_mounts)
        origin = origin_of(template)
        tags = tags_of(metadata)
        async with AsyncExitStack() as stack:
            client = await _client(options, stack)
            if isinstance(origin, SavedState):
                saved = client.machine(origin.machine, create=False)
                (machine,) = await saved.fork(generation=origin.generation, tags=tags)
            else:
                machine = await client.new_machine(tags=tags, template=origin, idempotency_key=idempotency_key)
            if envs:
                (await machine.run(setting(envs), notices=False)).raise_for_error()
            return cls(machine, stack.pop_all(), options)

    @classmethod
    def _by_id(cls, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        async def call(sandbox_id: str, *arguments: Any, **options: Any) -> Any:
            async with AsyncExitStack() as stack:
                client = await _client(options, stack)
                sandbox = cls(client.machine(sandbox_id, create=False), options=options)  # type: ignore[arg-type]
                answer = await method(sandbox, *arguments, **options)
                if answer is sandbox:
                    sandbox._at_the_end = stack.pop_all()
                return answer

        return call

    @on_either
    async def connect(
        self,
        timeout: float | None = None,
        logger: Any = None,
        *,
        on_resume: str = "restore",
        **options: Unpack[AsyncOptions],
    ) -> AsyncSandbox:
        """A machine by its id, asleep or not, however long ago it was made. Raises `MachineNotFound`."""
        check_options(options)
        await self._machine.detail()
        return self

    async def run_code(
        self,
        code: str,
        language: str | None = None,
        context: None = None,
        on_stdout: OnOutput | None = None,
        on_stderr: OnOutput | None = None,
        on_result: OnResult | None = None,
        on_error: OnError | None = None,
        envs: Mapping[str, str] | None = None,
        timeout: float | None = None,
        request_timeout: float | None = None,
    ) -> Execution:
        """See `Sandbox`. What is told may be coroutines' functions."""
        check_language(language)
        refuse(context=context)
        if envs:
            (await self._machine.run(setting(envs), queue=True, notices=False)).raise_for_error()
        tell = telling(on_stdout, on_stderr, on_result)

        async def show(event: Stdout | Stderr | Display) -> None:
            await settled(None if tell is None else tell(event))

        result = await self._machine.run(
            code, timeout_seconds=seconds(timeout, RUN_SECONDS), queue=True, on_output=show if tell else None
        )
        execution = execution_of(result)
        for call in endings(execution, result.notices, on_stderr, on_result, on_error):
            await settled(call())
        return execution

    @on_either
    async def pause(
        self,
        keep_memory: bool | None = None,
        *,
        mode: str | None = None,
        strict: bool = False,
        **options: Unpack[AsyncOptions],
    ) -> bool:
        """See `Sandbox`."""
        check_options(options)
        await self._machine.sleep()
        return True

    beta_pause = pause

    async def is_running(self, request_timeout: float | None = None) -> bool:
        """Whether it is there, asleep or awake: either way, the next call is answered."""
        try:
            await self._machine.detail()
        except MachineNotFound:
            return False
        return True

    @on_either
    async def set_timeout(self, timeout: float, **options: Unpack[AsyncOptions]) -> None:
        """Nothing: it does not end by itself."""
        check_options(options)

    @on_either
    async def update_network(self, network: Any, **options: Unpack[AsyncOptions]) -> None:
        """Nothing: there is no network inside."""
        check_options(options)

    @on_either
    async def get_info(self, **options: Unpack[AsyncOptions]) -> SandboxInfo:
        """See `Sandbox`."""
        check_options(options)
        return info_of(await self._machine.detail())

    @on_either
    async def fork(
        self,
        timeout: float | None = None,
        count: int | None = None,
        logger: Any = None,
        **options: Unpack[AsyncOptions],
    ) -> list[AsyncSandbox | Exception]:
        """See `Sandbox`."""
        check_options(options)
        forks = await self._machine.fork(count=count or 1)
        return [await AsyncSandbox.connect(fork.name, **self._options) for fork in forks]

    @on_either
    async def create_snapshot(
        self, name: str | None = None, *, mode: str | None = None, **options: Unpack[AsyncOptions]
    ) -> SnapshotInfo:
        """See `Sandbox`."""
        check_options(options)
        refuse(name=name)
        await self._machine.sync()
        state = current(self.sandbox_id, await self._machine.snapshots())
        await self._machine.pin(state.generation)
        return state.info

    def list_snapshots(
        self,
        limit: int | None = None,
        next_token: str | None = None,
        name: str | None = None,
        **options: Unpack[AsyncOptions],
    ) -> AsyncSnapshotPaginator:
        """See `Sandbox`."""
        check_options(options)
        refuse(next_token=next_token, name=name)

        async def fetch() -> list[SnapshotInfo]:
            return pinned(self.sandbox_id, await self._machine.snapshots())

        return AsyncSnapshotPaginator(fetch, limit)

    @staticmethod
    async def delete_snapshot(snapshot_id: str, **options: Unpack[AsyncOptions]) -> bool:
        """See `Sandbox`."""
        state = saved_state(snapshot_id)
        async with AsyncExitStack() as stack:
            client = await _client(options, stack)
            try:
                await client.machine(state.machine, create=False).unpin(state.generation)
            except (MachineNotFound, SnapshotNotFound):
                return False
            return True

    @on_either
    async def kill(self, **options: Unpack[AsyncOptions]) -> bool:
        """Delete it for good; False if it is not there."""
        check_options(options)
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

    @staticmethod
    def list(
        query: SandboxQuery | None = None,
        limit: int | None = None,
        next_token: str | None = None,
        order: str | None = None,
        **options: Unpack[AsyncOptions],
    ) -> AsyncSandboxPaginator:
        """See `Sandbox`."""
        refuse(next_token=next_token)
        tags = tags_of(query.metadata if query else None)

        async def fetch() -> list[SandboxInfo]:
            async with AsyncExitStack() as stack:
                machines = await (await _client(options, stack)).machines(tags=tags)
            return chosen([info_of(each.info) for each in machines if each.info], query, order)

        return AsyncSandboxPaginator(fetch, limit)


async def _client(options: Mapping[str, Any], stack: AsyncExitStack) -> AsyncClient:
    """The client that is among the options, or one that is closed with the stack."""
    key = own_key(options)
    given: AsyncClient | None = options.get("client")
    if given is not None:
        return given
    return await stack.enter_async_context(AsyncClient(api_key=key))
