"""Whether this host can do the main job: what was found, and the one line that cures each lack."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import psutil

from torpor_snapshotter.runtime import Runtime
from torpor_worker.gvisor import GVisorHost, GVisorSandbox
from torpor_worker.gvisor.cgroups import MOUNT, Cgroups
from torpor_worker.gvisor.cpu import missing_features
from torpor_worker.gvisor.namespace import (
    has_system_privileges,
    install_launcher,
    namespace_prefix,
    namespace_problem,
)
from torpor_worker.gvisor.runsc import Runsc
from torpor_worker.sandbox import InterpreterDied, Limits, Result, SandboxError, SandboxLost

_GIBIBYTE = 1024**3
_MEMORY_BYTES = 2 * _GIBIBYTE
_DISK_BYTES = 5 * _GIBIBYTE
_NAMESPACES = 256
_SLOW_WAKE_MICROSECONDS = 100


class Verdict(Enum):
    """How much a finding matters."""

    GOOD = "good"
    WEAK = "weak"
    """Torpor works, but less safely, slowly or not for many machines."""
    LACKING = "lacking"
    """The main job cannot run."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    verdict: Verdict
    found: str
    cure: str | None = None
    """One line that cures a lack, for people to run or read."""


def check_kernel() -> Finding:
    """Linux on x86-64, recent enough for systrap."""
    found = f"{platform.system()} {platform.release()} on {platform.machine()}"
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return Finding("kernel", Verdict.LACKING, found, "Run Torpor on Linux on an x86-64 processor.")
    major, minor = (int(number) for number in platform.release().split(".")[:2])
    if (major, minor) < (5, 4):
        return Finding("kernel", Verdict.LACKING, found, "Run a kernel of version 5.4 or newer.")
    return Finding("kernel", Verdict.GOOD, found)


def check_privileges(launcher_folder: Path, proc: Path = Path("/proc")) -> Finding:
    """Root's privileges, or a user namespace in which a capability is used, not only made."""
    if has_system_privileges((proc / "self/status").read_text()):
        return Finding("privileges", Verdict.GOOD, "root; no user namespace is needed")
    try:
        launcher = install_launcher(launcher_folder)
    except SandboxError as error:
        return Finding("privileges", Verdict.LACKING, str(error), "sudo apt-get install util-linux")
    problem = namespace_problem(namespace_prefix(launcher))
    if problem is None:
        most = int(_read(proc / "sys/user/max_user_namespaces") or _NAMESPACES)
        if most < _NAMESPACES:
            found = f"user namespaces work, but only {most} are allowed, and a sandbox needs two"
            return Finding("privileges", Verdict.WEAK, found, "sudo sysctl -w user.max_user_namespaces=15000")
        return Finding("privileges", Verdict.GOOD, "no root; a mount in a user namespace works")
    return Finding("privileges", Verdict.LACKING, f"no root, and {problem}", namespace_cure(launcher, proc))


def namespace_cure(launcher: Path, proc: Path) -> str:
    """The line that lets this user have a namespace, judged by what the kernel says of its restrictions."""
    if (_read(proc / "sys/user/max_user_namespaces") or "1") == "0":
        return "sudo sysctl -w user.max_user_namespaces=15000"
    if _read(proc / "sys/kernel/unprivileged_userns_clone") == "0":
        return "sudo sysctl -w kernel.unprivileged_userns_clone=1"
    if _read(proc / "sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
        return f"Install packaging/apparmor/torpor-launcher for {launcher}: its first lines say how."
    if "Seccomp:\t2" in (proc / "self/status").read_text():
        return "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined ..."
    return "Run as root, or ask whoever runs this host to allow user namespaces for this user."


def check_cpu(features: str) -> Finding:
    """The x86-64-v3 level, from the output of `runsc cpu-features`."""
    missing = missing_features(features)
    if missing:
        found = f"below x86-64-v3: no {', '.join(missing)}"
        return Finding(
            "processor", Verdict.WEAK, found, "Run on a processor of 2015 or newer, with its model passed on."
        )
    latency = deepest_idle_microseconds(Path("/sys/devices/system/cpu/cpu0/cpuidle"))
    if latency > _SLOW_WAKE_MICROSECONDS:
        found = f"x86-64-v3; its deepest idle state takes {latency} µs to leave, which each call may pay"
        return Finding("processor", Verdict.WEAK, found, f"sudo cpupower idle-set -D {_SLOW_WAKE_MICROSECONDS}")
    return Finding("processor", Verdict.GOOD, f"x86-64-v3, {os.cpu_count()} cores")


def deepest_idle_microseconds(folder: Path) -> int:
    """How long the deepest enabled idle state takes to leave; 0 if the kernel does not say."""
    enabled = [state for state in folder.glob("state*") if _read(state / "disable") != "1"]
    return max((int(_read(state / "latency") or 0) for state in enabled), default=0)


def check_cgroups(folder: Path) -> Finding:
    """Whether limits can be set by cgroup."""
    if has_system_privileges(Path("/proc/self/status").read_text()):
        cgroups = Cgroups.find(folder, MOUNT)
        if cgroups is not None:
            found = f"version {cgroups.version}: {', '.join(sorted(cgroups.parents))}"
            return Finding("cgroups", Verdict.GOOD, found)
    # Not a lack: the guest and the memory watcher keep the limits, and niceness the server's share.
    return Finding("cgroups", Verdict.GOOD, "not writable; limits are kept by the guest and the memory watcher")


def check_memory() -> Finding:
    """Enough for a handful of machines."""
    memory = psutil.virtual_memory()
    found = f"{memory.available / _GIBIBYTE:.1f} of {memory.total / _GIBIBYTE:.1f} GiB free"
    if memory.available < _MEMORY_BYTES:
        return Finding("memory", Verdict.WEAK, found, "Free memory, or set TORPOR_MEMORY_TOTAL lower.")
    return Finding("memory", Verdict.GOOD, found)


def check_disk(folder: Path) -> Finding:
    """Enough for a runtime and some images."""
    free = shutil.disk_usage(folder).free
    found = f"{free / _GIBIBYTE:.1f} GiB free in {folder}"
    if free < _DISK_BYTES:
        return Finding("disk", Verdict.WEAK, found, "Free some space, or set TORPOR_DATA_DIR to a larger disk.")
    return Finding("disk", Verdict.GOOD, found)


async def check_runsc(runtime: Runtime) -> tuple[Finding, str]:
    """The sandbox binary runs and is what its manifest says; also the processor's features, by its word."""
    cure = f"Delete {runtime.runsc.parent} and run `torpor runtime build`."
    runsc = Runsc(runtime.runsc, runtime.runsc.parent, Path(tempfile.gettempdir()))
    try:
        version = await runsc.version()
        features = await runsc.cpu_features()
    except (SandboxError, OSError) as error:
        return Finding("runsc", Verdict.LACKING, str(error), cure), ""
    if version != runtime.runsc_version:
        found = f"{version}, but its manifest says {runtime.runsc_version}"
        return Finding("runsc", Verdict.LACKING, found, cure), features
    return Finding("runsc", Verdict.GOOD, f"gVisor {version}"), features


async def check_main_job(runtime: Runtime, folder: Path, launcher_folder: Path) -> Finding:
    """Run, checkpoint and restore a tiny sandbox in `folder`, and ask it what it was told before."""
    host = GVisorHost(runtime, folder / "sandboxes", launcher_folder=launcher_folder)
    limits = Limits(memory_bytes=512 * 1024**2)
    image = folder / "image"
    clock = time.perf_counter
    try:
        began = clock()
        first = await host.start("doctor", limits)
        await _run(first, 0, "a = 3")
        started = clock()
        await first.checkpoint(image)
        await first.destroy()
        saved = clock()
        second, _ = await host.restore("doctor", image, limits)
        answer = await _run(second, 1, "a + 5")
        woken = clock()
    except SandboxError as error:
        return Finding("a tiny machine", Verdict.LACKING, str(error), "Cure what is lacking above, then look again.")
    finally:
        await host.close()
    times = f"start {started - began:.2f} s, save {saved - started:.2f} s, wake {woken - saved:.2f} s"
    if answer != "8":
        return Finding("a tiny machine", Verdict.LACKING, f"3 + 5 was {answer} after a restore", "Report this, please.")
    return Finding("a tiny machine", Verdict.GOOD, f"ran, slept and woke: {times}")


def launcher_folder_of(data_dir: Path) -> Path:
    """Where the launcher of a data folder lies: the path that an AppArmor profile names."""
    return data_dir / "sandboxes" / "launcher"


async def examine(runtime: Runtime | str, data_dir: Path, report: Callable[[Finding], None]) -> list[Finding]:
    """Look at everything, and `report` each finding as it comes. `runtime` is one, or the sentence why there is none.

    Writes only below `data_dir`, and leaves nothing there but the launcher.
    """
    findings: list[Finding] = []

    def note(finding: Finding) -> None:
        findings.append(finding)
        report(finding)

    launcher_folder = launcher_folder_of(data_dir)
    note(check_kernel())
    note(await asyncio.to_thread(check_privileges, launcher_folder))
    note(check_memory())
    note(check_disk(data_dir))
    if isinstance(runtime, str):
        note(Finding("runtime", Verdict.LACKING, runtime, "torpor runtime build"))
        return findings
    finding, features = await check_runsc(runtime)
    note(finding)
    if features:
        note(check_cpu(features))
    with tempfile.TemporaryDirectory(prefix="doctor-", dir=data_dir) as scratch:
        note(check_cgroups(Path(scratch) / "sandboxes"))
        note(await check_main_job(runtime, Path(scratch), launcher_folder))
    return findings


async def _run(sandbox: GVisorSandbox, position: int, code: str) -> str | None:
    """The value of one instruction. Raises `SandboxError` if there is none within a minute."""
    await sandbox.execute(position, position, code, replaying=False)
    try:
        async with asyncio.timeout(60):
            while True:
                event = await sandbox.receive()
                if isinstance(event, Result):
                    await sandbox.acknowledge()
                    return event.value
                if isinstance(event, InterpreterDied | SandboxLost):
                    raise SandboxError(event.reason)
    except TimeoutError:
        raise SandboxError(f"{code!r} was not answered within a minute") from None


def _read(file: Path) -> str:
    """The text of a file of the kernel's without its last line break; empty if it is not there."""
    try:
        return file.read_text().strip()
    except OSError:
        return ""
