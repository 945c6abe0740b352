"""Talking to a sandbox in a test, and a process of its own that uses a host: `python sandboxes.py PLAN FOLDER RUNTIME`.

PLAN is `journey` (run, checkpoint, restore; prints the last value) or `hold` (prints the sandbox's id, then waits to
be killed). Started as root with TORPOR_TEST_USER set it rehearses the journey and then becomes that user id.
"""

import asyncio
import json
import os
import shutil
import sys
import time
from pathlib import Path

import psutil

from torpor_snapshotter.runtime import Runtime
from torpor_worker.gvisor import GVisorHost
from torpor_worker.sandbox import (
    Event,
    InterpreterDied,
    Limits,
    Result,
    Sandbox,
    SandboxLost,
)

LIMITS = Limits(memory_bytes=512 * 1024**2)
ANSWER_SECONDS = 60


async def ending(sandbox: Sandbox) -> Event:
    """The next event that is the end of something: a result, or a death."""
    async with asyncio.timeout(ANSWER_SECONDS):
        while True:
            event = await sandbox.receive()
            if isinstance(event, Result | InterpreterDied | SandboxLost):
                if isinstance(event, Result):
                    await sandbox.acknowledge()
                return event


async def run(sandbox: Sandbox, position: int, code: str) -> str | None:
    """The value of one instruction, which must not fail."""
    await sandbox.execute(position, position, code, replaying=False)
    event = await ending(sandbox)
    assert isinstance(event, Result), event
    assert event.error is None, event.error
    return event.value


async def ended(processes: list[psutil.Process]) -> None:
    """Wait until none of them runs; a zombie does not, whose parent may never ask after it."""
    async with asyncio.timeout(ANSWER_SECONDS):
        while any(map(_runs, processes)):
            await asyncio.to_thread(time.sleep, 0.02)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def runtime_in(folder: Path) -> Runtime:
    """The runtime in a folder, as its manifest says."""
    facts = json.loads((folder / "runtime.json").read_text())
    named = {name: facts[name] for name in ("series", "runsc_version", "runsc_sha256", "rootfs_sha256")}
    return Runtime(runsc=folder / "runsc", rootfs=folder / "rootfs.erofs", **named)


async def journey(folder: Path, runtime: Runtime) -> None:
    host = GVisorHost(runtime, folder / "sandboxes")
    try:
        first = await host.start("journey", LIMITS)
        await run(first, 0, "a = 3")
        await first.checkpoint(folder / "image")
        await first.destroy()
        second, _ = await host.restore("journey", folder / "image", LIMITS)
        await second.pause()
        await second.resume()
        print(await run(second, 1, "a + 5"), flush=True)
    finally:
        await host.close()


async def hold(folder: Path, runtime: Runtime) -> None:
    host = GVisorHost(runtime, folder / "sandboxes")
    sandbox = await host.start("hold", LIMITS)
    await run(sandbox, 0, "import subprocess; child = subprocess.Popen(['sleep', '1000'])")
    print(sandbox.id, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    runtime_given = runtime_in(Path(sys.argv[3]))
    user = os.environ.get("TORPOR_TEST_USER")
    if user is not None and os.geteuid() == 0:
        # Python imports some modules when it needs them, and that user may not read root's Python: so all of it once.
        rehearsal = Path(sys.argv[2]) / "rehearsal"
        rehearsal.mkdir()
        asyncio.run(journey(rehearsal, runtime_given))
        shutil.rmtree(rehearsal)
        os.setgroups([])
        os.setresgid(int(user), int(user), int(user))
        os.setresuid(int(user), int(user), int(user))
    plan = {"journey": journey, "hold": hold}[sys.argv[1]]
    asyncio.run(plan(Path(sys.argv[2]), runtime_given))
