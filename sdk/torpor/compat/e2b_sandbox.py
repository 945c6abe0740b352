"""E2B's `Sandbox` on a machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .._client import Client
from .._errors import MachineNotFound, SnapshotNotFound
from .._machine import Machine
from .e2b_cells import RUN_SECONDS, OnError, OnOutput, OnResult, check_language, endings, setting, telling
from .e2b_commands import Commands
from .e2b_either import on_either
from .e2b_files import Filesystem
from .e2b_options import Options, check_options, own_key, refuse, seconds
from .e2b_pages import SandboxPaginator, SnapshotPaginator
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


class Sandbox(SandboxBase[Machine]):
    """A machine with E2B's interface. It has no time-out: it sleeps when it is idle, and wakes when it is called.

    What works on one sandbox can be asked of the class, too, with a sandbox's id before the other arguments.
    """

    commands: Commands
    files: Filesystem

    def __init__(
        self,
        template: str | None = None,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
        envs: Mapping[str, str] | None = None,
        *,
        sandbox_id: str | None = None,
        idempotency_key: str | None = None,
        client: Client | None = None,
    ) -> None:
        """A new machine, or with `sandbox_id` that one. `timeout` means nothing: nothing ends by itself.

        `template` is the name of one, or the id of a snapshot. `client` replaces the one with the settings of
        environment and configuration file.
        """
        self._client = client or Client()
        origin = origin_of(template)
        if sandbox_id is not None:
            machine = self._client.machine(sandbox_id, create=False)
        elif isinstance(origin, SavedState):
            saved = self._client.machine(origin.machine, create=False)
            (machine,) = saved.fork(generation=origin.generation, tags=tags_of(metadata))
        else:
            tags = tags_of(metadata)
            machine = self._client.new_machine(tags=tags, template=origin, idempotency_key=idempotency_key)
        super().__init__(machine)
        self.commands = Commands(machine)
        self.files = Filesystem(machine)
        if envs:
            machine.run(setting(envs), notices=False).raise_for_error()

    @classmethod
    def create(
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
        **options: Unpack[Options],
    ) -> Sandbox:
        """A new machine. Raises `InvalidArgumentException` for an unknown template, `mcp`, `iam` and `volume_mounts`.

        `timeout`, `secure`, `allow_internet_access`, `network`, `lifecycle` and `logger` mean nothing here. With the
        same `idempotency_key` within a day no other machine is made, except from a snapshot.

        >>> sandbox = Sandbox.create()
        >>> execution = sandbox.run_code("a = 3")
        >>> sandbox.run_code("a + 5").text
        '8'
        """
        refuse(mcp=mcp, iam=iam, volume_mounts=volume_mounts)
        client = _client(options)
        return cls(template, timeout, metadata, envs, idempotency_key=idempotency_key, client=client)

    @classmethod
    def _by_id(cls, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def call(sandbox_id: str, *arguments: Any, **options: Any) -> Any:
            return method(cls(sandbox_id=sandbox_id, client=_client(options)), *arguments, **options)

        return call

    @on_either
    def connect(
        self,
        timeout: float | None = None,
        logger: Any = None,
        *,
        on_resume: str = "restore",
        **options: Unpack[Options],
    ) -> Sandbox:
        """A machine by its id, asleep or not, however long ago it was made. Raises `MachineNotFound`."""
        check_options(options)
        self._machine.detail()
        return self

    def run_code(
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
        """Run a cell. An error of the code is in the answer, and is not raised.

        `timeout` None is 300 seconds, and 0 the longest that the server allows. Raises `TorporError` for a language
        that is not Python, and `InvalidArgumentException` for a `context`.
        """
        check_language(language)
        refuse(context=context)
        if envs:
            self._machine.run(setting(envs), queue=True, notices=False).raise_for_error()
        tell = telling(on_stdout, on_stderr, on_result)
        limit = seconds(timeout, RUN_SECONDS)
        result = self._machine.run(code, timeout_seconds=limit, queue=True, on_output=tell)
        execution = execution_of(result)
        for call in endings(execution, result.notices, on_stderr, on_result, on_error):
            call()
        return execution

    @on_either
    def pause(
        self,
        keep_memory: bool | None = None,
        *,
        mode: str | None = None,
        strict: bool = False,
        **options: Unpack[Options],
    ) -> bool:
        """Put it to sleep now. Never needed: idle, it falls asleep. Raises `MachineNotIdle` while something runs."""
        check_options(options)
        self._machine.sleep()
        return True

    beta_pause = pause

    def is_running(self, request_timeout: float | None = None) -> bool:
        """Whether it is there, asleep or awake: either way, the next call is answered."""
        try:
            self._machine.detail()
        except MachineNotFound:
            return False
        return True

    @on_either
    def set_timeout(self, timeout: float, **options: Unpack[Options]) -> None:
        """Nothing: it does not end by itself."""
        check_options(options)

    @on_either
    def update_network(self, network: Any, **options: Unpack[Options]) -> None:
        """Nothing: there is no network inside."""
        check_options(options)

    @on_either
    def get_info(self, **options: Unpack[Options]) -> SandboxInfo:
        """What is known of it. Does not wake it."""
        check_options(options)
        return info_of(self._machine.detail())

    @on_either
    def fork(
        self,
        timeout: float | None = None,
        count: int | None = None,
        logger: Any = None,
        **options: Unpack[Options],
    ) -> list[Sandbox | Exception]:
        """Sandboxes that go on from its state of now, each its own way: all of them, or what `Machine.fork` raises."""
        check_options(options)
        forks = self._machine.fork(count=count or 1)
        return [type(self)(sandbox_id=fork.name, client=self._client) for fork in forks]

    @on_either
    def create_snapshot(
        self, name: str | None = None, *, mode: str | None = None, **options: Unpack[Options]
    ) -> SnapshotInfo:
        """Keep its state of now, as long as the machine is there. Raises `InvalidArgumentException` for a `name`."""
        check_options(options)
        refuse(name=name)
        self._machine.sync()
        state = current(self.sandbox_id, self._machine.snapshots())
        self._machine.pin(state.generation)
        return state.info

    def list_snapshots(
        self,
        limit: int | None = None,
        next_token: str | None = None,
        name: str | None = None,
        **options: Unpack[Options],
    ) -> SnapshotPaginator:
        """Its snapshots that are kept for good, newest first. Raises `InvalidArgumentException` for a `name`."""
        check_options(options)
        refuse(next_token=next_token, name=name)
        return SnapshotPaginator(lambda: pinned(self.sandbox_id, self._machine.snapshots()), limit)

    @staticmethod
    def delete_snapshot(snapshot_id: str, **options: Unpack[Options]) -> bool:
        """Keep a snapshot only as long as any other; False if it is not there."""
        state = saved_state(snapshot_id)
        try:
            _client(options).machine(state.machine, create=False).unpin(state.generation)
        except (MachineNotFound, SnapshotNotFound):
            return False
        return True

    @on_either
    def kill(self, **options: Unpack[Options]) -> bool:
        """Delete it for good; False if it is not there."""
        check_options(options)
        if not self.is_running():
            return False
        self._machine.delete()
        return True

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @staticmethod
    def list(
        query: SandboxQuery | None = None,
        limit: int | None = None,
        next_token: str | None = None,
        order: str | None = None,
        **options: Unpack[Options],
    ) -> SandboxPaginator:
        """The account's machines, newest first unless `order` is `asc`, `limit` on each page."""
        refuse(next_token=next_token)
        client = _client(options)
        tags = tags_of(query.metadata if query else None)
        return SandboxPaginator(
            lambda: chosen([info_of(each.info) for each in client.machines(tags=tags) if each.info], query, order),
            limit,
        )


def _client(options: Mapping[str, Any]) -> Client:
    key = own_key(options)
    given: Client | None = options.get("client")
    return given or Client(api_key=key)
