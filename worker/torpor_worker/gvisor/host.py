"""Makes gVisor sandboxes on this host, and leaves none behind."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path

import structlog

from torpor_snapshotter.runtime import Runtime
from torpor_worker.guest_code import GuestCode, own_code
from torpor_worker.guest_link import GuestLink
from torpor_worker.gvisor.cgroups import MOUNT, Cgroups
from torpor_worker.gvisor.cpu import visible_features
from torpor_worker.gvisor.fifos import Fifos
from torpor_worker.gvisor.leftovers import (
    commands_ended,
    forget_container,
    kill_processes,
    known_containers,
    sandbox_processes,
)
from torpor_worker.gvisor.namespace import command_prefix
from torpor_worker.gvisor.record import Record, survivors_in
from torpor_worker.gvisor.runsc import Runsc
from torpor_worker.gvisor.sandbox import GVisorSandbox
from torpor_worker.gvisor.spares import LIMITS as SPARE_LIMITS
from torpor_worker.gvisor.spares import MACHINE as SPARE
from torpor_worker.gvisor.spares import Spares
from torpor_worker.gvisor.spec import spec_bytes, spec_sha256
from torpor_worker.gvisor.watcher import MemoryWatcher
from torpor_worker.sandbox import Adopted, GuestState, Limits, RuntimeUnavailable, SandboxError
from torpor_worker.survivors import Survivor

log = structlog.get_logger(__name__)

_NICENESS = ("nice", "-n", "10")
"""Sandboxes give way to the server where no cgroup shares the processors out."""

_NO_SPINNING = "--systrap-disable-fast-path"
_FEW_PROCESSORS = 4
"""On so few, a sandbox's threads that wait for work by spinning take the processor from those that have some."""

_ATTACH_SECONDS = 60
_PRELOAD_SECONDS = 300
_ADOPT_SECONDS = 20
_ATTEMPTS = 2


class GVisorHost:
    """The real `torpor_worker.sandbox.SandboxHost`: every sandbox of one folder of the host's disk.

    New ones are of `runtime`. `find` brings the runtime of an image that is of another series; it raises
    `RuntimeUnavailable`, as every other series does without it.

    `folder` holds `state/` (runsc's), `bundle/` (the spec), `machines/ID/` for each sandbox and, where this process
    is not root, `launcher/` (unless `launcher_folder` says where else); nothing outside is written but cgroups that
    bear a name made of the folder's path. `guest` is the code that guests are given; None: this package's own.
    """

    def __init__(
        self,
        runtime: Runtime,
        folder: Path,
        *,
        guest: GuestCode | None = None,
        find: Callable[[str], Awaitable[Runtime]] | None = None,
        launcher_folder: Path | None = None,
        cgroup_mount: Path = MOUNT,
    ) -> None:
        self.runtime = runtime
        self._find = find
        self._runtimes = {runtime.series: runtime}
        self._guest = guest or own_code()
        self._not_replaceable: set[str] = set()
        """Digests of guests that would not make way for ours, or died of it."""
        self._folder = folder.resolve()
        self._state = self._folder / "state"
        self._bundle = self._folder / "bundle"
        self._machines = self._folder / "machines"
        self._launcher_folder = launcher_folder or self._folder / "launcher"
        self._cgroup_mount = cgroup_mount
        self._cgroups: Cgroups | None = None
        self._runsc: Runsc | None = None
        self._others: dict[str, Runsc] = {}
        """Of older runtimes, by series."""
        self._preparing = asyncio.Lock()
        self._sandboxes: dict[str, GVisorSandbox] = {}
        self._making: set[str] = set()
        self._kept: set[str] = set()
        """Survivors that nobody has adopted yet."""
        self._spares = Spares()
        self._watcher = MemoryWatcher()
        self._watching: asyncio.Task[None] | None = None

    @property
    def version(self) -> str:
        """Names what a new sandbox here begins with: runtime, spec and the guest's code."""
        return f"{_named(self.runtime)} {self._guest.sha256}"

    @property
    def series(self) -> str:
        """The runtime series of new sandboxes."""
        return self.runtime.series

    def runtime_facts(self, series: str) -> dict[str, str]:
        """What tells a runtime that is here from every other: stamp and digests."""
        runtime = self._runtimes[series]
        return {
            "series": series,
            "runsc_version": runtime.runsc_version,
            "runsc_sha256": runtime.runsc_sha256,
            "rootfs_sha256": runtime.rootfs_sha256,
        }

    async def have(self, series: str) -> None:
        """See to it that images of a runtime series can be restored here. Raises `RuntimeUnavailable`."""
        if series not in self._runtimes:
            if self._find is None:
                raise RuntimeUnavailable(f"Runtime {series} is not installed.")
            self._runtimes[series] = await self._find(series)

    async def start(
        self, machine: str, limits: Limits, preload: Sequence[str] = (), series: str | None = None
    ) -> GVisorSandbox:
        """A new sandbox with an empty interpreter, attached and ready for frames."""
        runtime = await self._runtime(series)
        sandbox = await self._create(machine, limits, runtime)
        await self._run(sandbox, runtime, None, preload)
        return sandbox

    async def restore(
        self, machine: str, image: Path, limits: Limits, series: str | None = None, *, waited_for: bool = True
    ) -> tuple[GVisorSandbox, GuestState]:
        """A sandbox restored from `image`, attached; tried twice, each time in another sandbox."""
        runtime = await self._runtime(series)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                takes_spare = waited_for and attempt == 1 and runtime is self.runtime
                spare = await self._spares.take(machine, limits) if takes_spare else None
                sandbox = spare or await self._create(machine, limits, runtime)
                return sandbox, await self._run(sandbox, runtime, image)
            except SandboxError:
                if attempt == _ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

    @property
    def spares(self) -> int:
        """How many created containers wait for an image."""
        return len(self._spares)

    @property
    def spare_bytes(self) -> int:
        """What they use."""
        return self._spares.memory_bytes

    async def add_spare(self) -> None:
        """Create one more container, and remove those that have died."""
        await self._spares.remove_dead()
        self._spares.add(await self._create(SPARE, SPARE_LIMITS, self.runtime))

    async def drop_spare(self) -> bool:
        """Remove one; False if there is none."""
        return await self._spares.drop()

    async def survivors(self) -> list[Survivor]:
        """Sandboxes of this folder that this object did not make, that live, and that are written down."""
        await self._prepared()
        found = await asyncio.to_thread(survivors_in, self._machines, self._state)
        return [survivor for survivor in found if self._is_nobodys([survivor.id])]

    async def adopt(self, survivor: Survivor, limits: Limits) -> Adopted:
        """Attach to a survivor. Raises `SandboxError`; then it is removed."""
        container, folder = survivor.id, self._machines / survivor.id
        link = GuestLink(folder / "stdin", folder / "stdout")
        sandbox: GVisorSandbox | None = None
        self._making.add(container)
        self._kept.discard(container)
        try:
            record = Record.read(folder)
            if record is None or not record.is_alive(self._state, container):
                raise SandboxError("its process has ended")
            runtime = await self._runtime(record.series)
            if record.runtime != _named(runtime):
                raise SandboxError("it runs on a runtime that was replaced")
            runsc = await self._binary(runtime)
            await commands_ended(self._state, container)
            status = await runsc.status(container)
            if status not in ("running", "paused"):
                raise SandboxError(f"it is {status}")
            await link.open()
            if self._cgroups is not None:
                self._cgroups.limit(container, limits)
            sandbox = self._sandbox(container, survivor.facts.machine, limits, runtime, record.pid, runsc, link)
            if status == "paused":
                await sandbox.resume()
            self._watcher.add(sandbox)
            state = await sandbox.attach(new=None, timeout_seconds=_ADOPT_SECONDS)
            if sandbox.guest_sha256 is None:
                raise SandboxError("its guest does not count what it says")
            await self._upgrade(sandbox)
        except BaseException as error:
            await asyncio.shield(self._undo(container, link) if sandbox is None else sandbox.destroy())
            if isinstance(error, OSError):
                raise SandboxError(f"Cannot attach to a sandbox: {error}.") from error
            raise
        finally:
            self._making.discard(container)
        return Adopted(sandbox, state, was_frozen=status == "paused")

    async def dismiss(self, survivor: Survivor) -> None:
        """Remove a survivor that nobody wants."""
        await self._prepared()
        self._kept.discard(survivor.id)
        await self._remove({survivor.id}, lambda arguments: survivor.id in arguments)

    async def remove_leftovers(self, keep: Collection[str] = ()) -> int:
        """Remove every sandbox of this folder that this object did not make, but for `keep`; how many there were."""
        await self._prepared()
        self._kept = set(keep)
        known = await asyncio.to_thread(known_containers, self._state, self._machines)
        leftovers = {container for container in known if self._is_nobodys([container])}
        await self._remove(leftovers, self._is_nobodys)
        return len(leftovers)

    async def close(self) -> None:
        """Remove every sandbox made here, and what was kept. Raises `SandboxError` if one stays, after the others."""
        removals = (sandbox.destroy() for sandbox in list(self._sandboxes.values()))
        outcomes = await asyncio.gather(*removals, return_exceptions=True)
        if self._kept:
            await self.remove_leftovers()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})
            self._watching = None
        if self._cgroups is not None:
            await self._cgroups.remove_all()
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    async def cpu_features(self) -> list[str]:
        """What sandboxes here see of the processor; whoever restores their images needs all of it."""
        return visible_features(await (await self._prepared()).cpu_features())

    async def _runtime(self, series: str | None) -> Runtime:
        series = series or self.series
        await self.have(series)
        return self._runtimes[series]

    async def _create(self, machine: str, limits: Limits, runtime: Runtime) -> GVisorSandbox:
        """A container that has not started."""
        runsc = await self._binary(runtime)
        container = secrets.token_hex(8)
        folder = self._machines / container
        link = GuestLink(folder / "stdin", folder / "stdout")
        self._making.add(container)
        try:
            fifos = Fifos.make(folder, machine)
            await link.open()
            wrapper = _NICENESS if self._cgroups is None else self._cgroups.make(container, limits)
            pid = await runsc.create(container, self._bundle, folder, fifos, wrapper=wrapper)
            sandbox = self._sandbox(container, machine, limits, runtime, pid, runsc, link)
        except OSError as error:
            await asyncio.shield(self._undo(container, link))
            raise SandboxError(f"Cannot make a sandbox: {error}.") from error
        except BaseException:
            await asyncio.shield(self._undo(container, link))
            raise
        finally:
            self._making.discard(container)
        return sandbox

    async def _run(
        self, sandbox: GVisorSandbox, runtime: Runtime, image: Path | None, preload: Sequence[str] = ()
    ) -> GuestState:
        """Start a created container, or restore the image into it, and attach; removed if that fails."""
        try:
            runsc = await self._binary(runtime)
            folder = self._machines / sandbox.id
            if image is None:
                await runsc.start(sandbox.id)
            else:
                await runsc.restore(sandbox.id, self._bundle, folder, Fifos.of(folder), image)
            self._watcher.add(sandbox)
            seconds = _PRELOAD_SECONDS if preload else _ATTACH_SECONDS
            new = self._guest if image is None else None
            state = await sandbox.attach(new=new, timeout_seconds=seconds, preload=preload)
            await self._upgrade(sandbox)
            return state
        except OSError as error:
            await asyncio.shield(sandbox.destroy())
            raise SandboxError(f"Cannot make a sandbox: {error}.") from error
        except BaseException:
            await asyncio.shield(sandbox.destroy())
            raise

    def _sandbox(
        self,
        container: str,
        machine: str,
        limits: Limits,
        runtime: Runtime,
        pid: int,
        runsc: Runsc,
        link: GuestLink,
    ) -> GVisorSandbox:
        sandbox = self._sandboxes[container] = GVisorSandbox(
            container,
            machine,
            limits,
            series=runtime.series,
            runtime=_named(runtime),
            pid=pid,
            folder=self._machines / container,
            runsc=runsc,
            cgroups=self._cgroups,
            link=link,
            on_destroy=self._forget,
        )
        return sandbox

    async def _upgrade(self, sandbox: GVisorSandbox) -> None:
        """Have a guest of other code replace itself, if it can; it goes on as it was if it cannot.

        Raises `SandboxError` if it dies of it. A guest of that code is not asked again.
        """
        code = sandbox.guest_sha256
        if code is None or code == self._guest.sha256 or code in self._not_replaceable:
            return
        self._not_replaceable.add(code)
        problem = await sandbox.upgrade(self._guest)
        if problem is None:
            self._not_replaceable.discard(code)
        else:
            log.warning("A guest could not be replaced", action="upgrade", machine=sandbox.machine, error=problem)

    async def _undo(self, container: str, link: GuestLink) -> None:
        await link.close()
        await self._remove({container}, lambda arguments: container in arguments)

    def _is_nobodys(self, arguments: list[str]) -> bool:
        """Whether no container made or kept here is named; new ones are known before anything of theirs exists."""
        ours = (self._making, self._sandboxes.keys(), self._kept)
        return all(each.isdisjoint(arguments) for each in ours)

    async def _remove(self, containers: set[str], wanted: Callable[[list[str]], bool]) -> None:
        """Remove containers that no object stands for; `wanted` tells their processes by the arguments."""
        processes = await asyncio.to_thread(sandbox_processes, self._state, wanted)
        await asyncio.to_thread(kill_processes, processes)
        for container in containers:
            forget_container(self._state, container)
            if self._cgroups is not None:
                await self._cgroups.remove(container)
            shutil.rmtree(self._machines / container, ignore_errors=True)

    async def _prepared(self) -> Runsc:
        async with self._preparing:
            if self._runsc is None:
                self._runsc = await _flagged(await asyncio.to_thread(self._prepare))
                self._watching = asyncio.create_task(self._watcher.run(), name="memory-watcher")
            if self._watching is not None and self._watching.done():
                self._watching.result()  # raises what ended it: no sandbox is made that nobody watches
            return self._runsc

    async def _binary(self, runtime: Runtime) -> Runsc:
        newest = await self._prepared()
        if runtime is self.runtime:
            return newest
        if runtime.series not in self._others:
            self._others[runtime.series] = await _flagged(newest.of(runtime))
        return self._others[runtime.series]

    def _prepare(self) -> Runsc:
        for folder in (self._folder, self._state, self._bundle, self._bundle / "rootfs", self._machines):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        half = self._bundle / ".config.json"
        half.write_bytes(spec_bytes())
        half.replace(self._bundle / "config.json")
        prefix = command_prefix(self._launcher_folder)
        self._cgroups = None if prefix else Cgroups.find(self._folder, self._cgroup_mount)
        return Runsc(self.runtime.runsc, self.runtime.rootfs.parent, self._state, prefix)

    def _forget(self, sandbox: GVisorSandbox) -> None:
        self._watcher.discard(sandbox)
        self._sandboxes.pop(sandbox.id, None)


def _named(runtime: Runtime) -> str:
    return " ".join([runtime.series, runtime.runsc_sha256, runtime.rootfs_sha256, spec_sha256()])


async def _flagged(runsc: Runsc) -> Runsc:
    return await runsc.with_flag(_NO_SPINNING) if len(os.sched_getaffinity(0)) <= _FEW_PROCESSORS else runsc
