"""One gVisor container with a machine's guest in it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

import structlog

from torpor_worker.command import CommandInput, CommandSignal, CommandSpec
from torpor_worker.files import FileTransfer, FileWork
from torpor_worker.guest_code import GuestCode
from torpor_worker.guest_link import GuestLink
from torpor_worker.gvisor import image as images
from torpor_worker.gvisor.cgroups import Cgroups
from torpor_worker.gvisor.fifos import Fifos
from torpor_worker.gvisor.leftovers import forget_container
from torpor_worker.gvisor.memory import MemoryFile
from torpor_worker.gvisor.record import Record, started_ticks
from torpor_worker.gvisor.runsc import Runsc
from torpor_worker.sandbox import Completion, Event, GuestState, Limits, SandboxDied, SandboxError
from torpor_worker.stdin import Stdin
from torpor_worker.survivors import ProcessFacts

log = structlog.get_logger(__name__)

_LAST_WORDS_SECONDS = 0.2
"""How long to read on after the sandbox's death: what it said before is in the pipe."""

_KILL_SECONDS = 1.0


class GVisorSandbox:
    """The real `torpor_worker.sandbox.Sandbox`; made by `GVisorHost`."""

    def __init__(
        self,
        container: str,
        machine: str,
        limits: Limits,
        *,
        series: str,
        pid: int,
        runtime: str,
        folder: Path,
        runsc: Runsc,
        cgroups: Cgroups | None,
        link: GuestLink,
        on_destroy: Callable[[GVisorSandbox], None],
    ) -> None:
        self.machine = machine
        self.limits = limits
        self.series = series
        self.pid = pid
        self._container = container
        self._runtime = runtime
        self._folder = folder
        self._runsc = runsc
        self._cgroups = cgroups
        self._link = link
        self._on_destroy = on_destroy
        self._memory = MemoryFile(pid)
        self._lost: str | None = None
        self.paused = False
        self._commands = asyncio.Lock()
        self._removed = False
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._started = started_ticks(pid)
        self._pidfd = os.pidfd_open(pid)
        self._loop.add_reader(self._pidfd, self._process_ended)

    @property
    def id(self) -> str:
        """The container id."""
        return self._container

    async def assign(self, machine: str, limits: Limits) -> None:
        """Give a sandbox that was made in advance to a machine."""
        self.belong_to(machine, limits)
        await self._link.configure(limits)

    def belong_to(self, machine: str, limits: Limits) -> None:
        """Give it to a machine before its guest listens. Raises `SandboxDied`, `OSError`."""
        self._check_alive()
        self.machine = machine
        Fifos.name(self._folder, machine)
        self._take_limits(limits)

    async def limit(self, limits: Limits) -> None:
        """Put it under other limits from now on."""
        self._check_alive()
        self._take_limits(limits)
        await self._link.configure(limits)

    def _take_limits(self, limits: Limits) -> None:
        self.limits = limits
        if self._cgroups is not None:
            self._cgroups.limit(self.id, limits)

    async def execute(self, position: int, seq: int, code: str, *, replaying: bool, stdin: Stdin | None = None) -> None:
        """Send an instruction."""
        self._check_alive()
        await self._link.execute(position, seq, code, replaying=replaying, stdin=stdin)

    async def feed(self, position: int, seq: int, piece: CommandInput) -> None:
        """Give an instruction more to read."""
        self._check_alive()
        await self._link.feed(position, seq, piece)

    async def reseed(self, position: int, seed: bytes) -> None:
        """Give the guest fresh randomness."""
        self._check_alive()
        await self._link.reseed(position, seed)

    async def interrupt(self, seq: int, *, step: Literal["interrupt", "again", "kill"]) -> None:
        """Stop what `seq` runs."""
        self._check_alive()
        await self._link.interrupt(seq, step=step)

    async def work_on_files(self, work: FileWork) -> FileTransfer:
        """Begin some work on the user's files."""
        self._check_alive()
        return await self._link.work_on_files(work)

    async def apply_change(self, position: int, transfer: FileTransfer) -> None:
        """Have a change that is prepared made true."""
        self._check_alive()
        await self._link.apply_change(position, transfer)

    async def command(self, position: int, seq: int, spec: CommandSpec, output_limit_bytes: int) -> None:
        """Start a command."""
        self._check_alive()
        await self._link.command(position, seq, spec, output_limit_bytes)

    async def feed_command(self, position: int, seq: int, piece: CommandInput) -> None:
        """Give a command input."""
        self._check_alive()
        await self._link.feed_command(position, seq, piece)

    async def signal_command(self, position: int | None, seq: int, signal: CommandSignal) -> None:
        """Send a command a signal."""
        self._check_alive()
        await self._link.signal_command(position, seq, signal)

    async def answer_packages(self, number: int, *, refused: str | None) -> None:
        """Answer an ask for packages."""
        self._check_alive()
        await self._link.answer_packages(number, refused=refused)

    async def rehearse(self) -> None:
        """Have the interpreter touch what the first instruction needs."""
        self._check_alive()
        await self._link.rehearse()

    async def complete(self, code: str, cursor: int) -> Completion:
        """What could follow at a cursor."""
        self._check_alive()
        return await self._link.complete(code, cursor)

    async def ping(self) -> GuestState:
        """Ask the guest for its state."""
        self._check_alive()
        return await self._link.ping()

    async def receive(self) -> Event:
        """The next event, in order; may be cancelled and called again without losing one."""
        return await self._link.receive()

    async def acknowledge(self) -> None:
        """Say that every event received so far is durable."""
        self._check_alive()
        await self._link.acknowledge()

    async def pause(self) -> None:
        """Freeze every process in it."""
        async with self._commands:
            self._check_alive()
            await self._link.hold_files()
            try:
                await self._link.settle()
                await self._runsc.pause(self.id)
                self.paused = True
            finally:
                if not self.paused:
                    self._link.release_files()

    async def resume(self) -> None:
        """Let it run on after `pause`."""
        async with self._commands:
            self._check_alive()
            await self._runsc.resume(self.id)
            self.paused = False
            self._link.release_files()

    async def checkpoint(self, image: Path) -> None:
        """Write an image into the new folder `image`; on failure nothing of it stays and the sandbox goes on."""
        async with self._commands:
            self._check_alive()
            try:
                if not self.paused:
                    await self._link.hold_files()
                    await self._link.settle()
                await self._write_image(image)
            finally:
                if not self.paused:
                    self._link.release_files()

    async def _write_image(self, image: Path) -> None:
        await asyncio.to_thread(images.make_folder, image, self.memory_bytes())
        try:
            await self._runsc.checkpoint(self.id, image)
            await asyncio.to_thread(images.check_whole, image)
        except OSError as error:
            await asyncio.to_thread(shutil.rmtree, image, ignore_errors=True)
            raise SandboxError(f"Cannot write the image {image}: {error}.") from error
        except BaseException:
            await asyncio.to_thread(shutil.rmtree, image, ignore_errors=True)
            raise

    async def remember(self, facts: ProcessFacts) -> None:
        """Write down what a successor of this worker must know to take it over."""
        self._check_alive()
        try:
            Record(self.pid, self._started, self.series, self._runtime, facts).write(self._folder)
        except OSError as error:
            # It is only not taken over then.
            log.warning("A process was not written down", action="remember", machine=self.machine, error=str(error))

    def memory_bytes(self) -> int:
        """What its memory file holds now; 0 when it is gone."""
        return self._memory.used_bytes()

    def overhead_bytes(self) -> int:
        """What the sandbox process needs beside; 0 when it is gone."""
        return self._memory.overhead_bytes()

    async def kill_largest(self, reason: str) -> None:
        """Have the guest kill its largest process; a dead one has nothing to kill, and a stuck one does not hear."""
        with suppress(SandboxError, TimeoutError):
            async with asyncio.timeout(_KILL_SECONDS):
                await self._link.kill_largest(reason)

    @property
    def guest_sha256(self) -> str | None:
        """Names the guest's code, once attached; None if it cannot be replaced."""
        return self._link.code

    async def upgrade(self, guest: GuestCode) -> str | None:
        """Have the guest replace itself by this code; None if it did, else why it goes on. Raises `SandboxError`."""
        return await self._link.upgrade(guest)

    async def attach(self, *, new: GuestCode | None, timeout_seconds: float, preload: Sequence[str] = ()) -> GuestState:
        """Begin the conversation; a `new` sandbox is given its guest code first. Raises `SandboxError`."""
        if new is not None:
            await self._link.load(preload, new)
        begun = time.monotonic()
        state = await self._link.attach(timeout_seconds)
        await self._link.configure(self.limits)
        return replace(state, answered_seconds=time.monotonic() - begun)

    async def lose(self, reason: str) -> None:
        """Remove it; `receive` gives what was said before and then a `SandboxLost` that says why."""
        self._lose(reason)
        await self.destroy()

    async def crash(self) -> None:
        """SIGKILL its process, and leave the rest to whoever hears of its death."""
        self._check_alive()
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    async def destroy(self) -> None:
        """Kill and remove every trace of it."""
        self._lose("it was removed")
        if not self._removed:
            Record.remove(self._folder)
        if not self._ended.is_set():
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        async with self._commands:
            if self._removed:
                return
            try:
                async with asyncio.timeout(30):
                    await self._ended.wait()
            except TimeoutError:
                raise SandboxError(f"Process {self.pid} of a sandbox does not end when it is killed.") from None
            forget_container(self._runsc.state, self.id)
            await self._link.close()
            if self._cgroups is not None:
                await self._cgroups.remove(self.id)
            shutil.rmtree(self._folder, ignore_errors=True)
            os.close(self._pidfd)
            self._removed = True
        self._on_destroy(self)

    def _process_ended(self) -> None:
        self._loop.remove_reader(self._pidfd)
        # Where this process is the container's init, nobody else takes the dead sandbox off the process table.
        with suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        self._ended.set()
        if self._lost is None:
            self._lost = "its process ended"
            self._loop.call_later(_LAST_WORDS_SECONDS, self._link.lose, self._lost)

    def _lose(self, reason: str) -> None:
        if self._lost is None:
            self._lost = reason
            self._link.lose(reason)

    def _check_alive(self) -> None:
        if self._lost is not None:
            raise SandboxDied(f"The sandbox is gone: {self._lost}.")
