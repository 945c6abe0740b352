"""The `runsc` commands as coroutines: each with a time-out, each failure with what was printed."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

from torpor_snapshotter.runtime import Runtime
from torpor_worker.gvisor.command import Command
from torpor_worker.gvisor.fifos import Fifos
from torpor_worker.sandbox import SandboxError

_PRINTED_CHARACTERS = 1000


@dataclass(frozen=True, slots=True)
class Runsc:
    """One sandbox binary, one folder of container states, and how commands are started.

    `prefix` is put before every command: what gives it a user namespace. `flags` are for every command too.
    """

    binary: Path
    runtime_folder: Path
    state: Path
    prefix: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    def of(self, runtime: Runtime) -> Runsc:
        """The same with the binary of a runtime, in its folder, and without flags, which it may not know."""
        return replace(self, binary=runtime.runsc, runtime_folder=runtime.rootfs.parent, flags=())

    async def create(
        self, container: str, bundle: Path, folder: Path, fifos: Fifos, *, wrapper: tuple[str, ...] = ()
    ) -> int:
        """Make a container that has not started; the process id of its sandbox.

        `folder` takes its log; `wrapper` is a command that runs this one in the cgroup or at the niceness that the
        sandbox is to inherit.
        """
        pid_file = folder / "pid"
        arguments = (f"--bundle={bundle}", f"--pid-file={pid_file}")
        await self._make(container, folder, fifos, 30, "create", *arguments, wrapper=wrapper)
        return int(pid_file.read_text())

    async def start(self, container: str) -> None:
        """Run what the spec says in a created container."""
        await self._command(30, "start", container)

    async def restore(self, container: str, bundle: Path, folder: Path, fifos: Fifos, image: Path) -> None:
        """Load an image into a created container and let it run."""
        await self._make(
            container, folder, fifos, 120, "restore", "--detach", f"--bundle={bundle}", f"--image-path={image}"
        )

    async def checkpoint(self, container: str, image: Path) -> None:
        """Write an image into the folder `image` and let the container go on as before."""
        arguments = ("--compression=none", "--leave-running", f"--image-path={image}")
        await self._command(120, "checkpoint", *arguments, container)

    async def pause(self, container: str) -> None:
        """Freeze every process of a container."""
        await self._command(20, "pause", container)

    async def resume(self, container: str) -> None:
        """Let a paused container run on."""
        await self._command(20, "resume", container)

    async def status(self, container: str) -> str:
        """What a container is: `creating`, `created`, `running`, `paused` or `stopped`."""
        printed = await self._command(20, "state", container)
        try:
            return str(json.loads(printed)["status"])
        except (ValueError, KeyError, TypeError):
            raise SandboxError(f"`runsc state` printed {printed[:_PRINTED_CHARACTERS]!r}.") from None

    async def version(self) -> str:
        """The version stamp, as `runsc --version` prints it."""
        printed = await self._command(20, "--version")
        found = re.search(r"version (\S+)", printed)
        return found.group(1) if found else printed.strip()

    async def cpu_features(self) -> str:
        """The features of this host's processor, joined by commas."""
        return (await self._command(20, "cpu-features")).strip()

    async def with_flag(self, flag: str) -> Runsc:
        """The same with one more flag for every command, or as it is if this binary does not know the flag."""
        more = replace(self, flags=(*self.flags, flag))
        try:
            await more.version()
        except SandboxError:
            return self
        return more

    def _flags(self) -> list[str]:
        flags = ["--platform=systrap", "--network=none", "--ignore-cgroups", *self.flags]
        return [*self.prefix, str(self.binary), f"--root={self.state}", *flags]

    async def _command(self, timeout_seconds: float, *arguments: str) -> str:
        status, printed, errors = await self._run([*self._flags(), *arguments], arguments[0], timeout_seconds)
        if status != 0:
            raise _failure(arguments[0], status, errors or printed)
        return printed

    async def _make(
        self,
        container: str,
        folder: Path,
        fifos: Fifos,
        timeout_seconds: float,
        name: str,
        *arguments: str,
        wrapper: tuple[str, ...] = (),
    ) -> None:
        # Standard error becomes the container's, so nobody may wait for its end: messages come through the log.
        log = folder / f"{name}.log"
        with fifos.guest_ends() as (stdin, stdout):
            command = [*wrapper, *self._flags(), f"--log={log}", name, *arguments, container]
            status, _, _ = await self._run(command, name, timeout_seconds, (stdin, stdout))
        if status != 0:
            printed = log.read_text(errors="replace") if log.exists() else ""
            raise _failure(name, status, printed)

    async def _run(
        self, words: list[str], name: str, timeout_seconds: float, ends: tuple[int, int] | None = None
    ) -> tuple[int, str, str]:
        """Exit status, and what was printed where no `ends` are given."""
        command = Command(words, cwd=self.runtime_folder, ends=ends)
        try:
            status = await command.finished(timeout_seconds)
        except TimeoutError:
            raise SandboxError(f"`runsc {name}` took longer than {timeout_seconds:g} s.") from None
        finally:
            printed, errors = command.printed()
        return status, printed, errors


def _failure(name: str, status: int, printed: str) -> SandboxError:
    # Go's stack traces follow the sentence that matters.
    said = printed.partition("\ngoroutine ")[0].partition("\n\t")[0].strip()[:_PRINTED_CHARACTERS]
    return SandboxError(f"`runsc {name}` failed with status {status}: {said or 'it printed nothing'}")
