"""Sandboxes on real gVisor: running, images, limits, and that nothing is left of them."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.support.sandboxes import LIMITS, ended, ending, run, runtime_in

import torpor_snapshotter
import torpor_worker
from torpor_snapshotter.runtime import Runtime
from torpor_worker.gvisor.cgroups import MOUNT
from torpor_worker.gvisor.host import GVisorHost
from torpor_worker.gvisor.namespace import has_system_privileges
from torpor_worker.sandbox import InterpreterDied, Result, SandboxDied, SandboxError, SandboxLost

pytestmark = pytest.mark.integration

OWNER = Path(__file__).parents[1] / "support" / "sandboxes.py"
NOBODY = "65534"

needs_root = pytest.mark.skipif(
    not has_system_privileges(Path("/proc/self/status").read_text()), reason="only root can mount a small disk"
)


def processes_of(folder: Path) -> list[psutil.Process]:
    """Every living process that mentions the folder in its arguments."""
    found = []
    for process in psutil.process_iter():
        try:
            mentions = any(str(folder) in argument for argument in process.cmdline())
            if mentions and process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def cgroups_named(container: str) -> list[Path]:
    """The cgroups of a container, wherever they are."""
    return [*MOUNT.glob(f"torpor-*/{container}"), *MOUNT.glob(f"*/torpor-*/{container}")]


def moved(runtime: Runtime, folder: Path) -> Runtime:
    """The same runtime in another folder that every user may read, by links where they can be made."""
    folder.mkdir()
    for name in ("runsc", "rootfs.erofs", "runtime.json"):
        source = runtime.runsc.parent / name
        try:
            os.link(source, folder / name)
        except OSError:
            shutil.copy(source, folder / name)
    return runtime_in(folder)


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """A folder on a disk of 8 MiB."""
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", disk], check=True)


async def test_a_sandbox_answers_and_keeps_its_variables(sandbox):
    await run(sandbox, 0, "a = 3")
    assert await run(sandbox, 1, "a + 5") == "8"
    assert sandbox.memory_bytes() > 1024**2


async def test_an_image_wakes_in_two_sandboxes_at_once_and_the_first_goes_on(host, sandbox, folder):
    await run(sandbox, 0, "a = 3")
    await sandbox.checkpoint(folder / "image")
    (one, state), (two, _) = await asyncio.gather(
        host.restore("one", folder / "image", LIMITS), host.restore("two", folder / "image", LIMITS)
    )
    assert state.last_position == 0
    await run(one, 1, "a = 30")
    assert [await run(each, 2, "a + 5") for each in (sandbox, one, two)] == ["8", "35", "8"]


async def test_a_spare_sandbox_takes_any_image_under_the_limits_of_its_machine(host, sandbox, folder):
    await run(sandbox, 0, "a = 3")
    await sandbox.checkpoint(folder / "image")
    await host.add_spare()
    assert host.spare_bytes > 1024**2
    waiting = {entry.name for entry in (folder / "sandboxes" / "machines").iterdir()} - {sandbox.id}
    woken, _ = await host.restore("woken", folder / "image", LIMITS)
    assert {woken.id} == waiting
    assert (folder / "sandboxes" / "machines" / woken.id / "machine").read_text() == "woken"
    assert woken.limits == LIMITS
    assert await run(woken, 1, "a + 5") == "8"
    assert woken.memory_bytes() > 1024**2
    assert host.spares == 0


async def test_a_spare_sandbox_that_died_is_passed_over_and_removed(host, sandbox, folder):
    await sandbox.checkpoint(folder / "image")
    await host.add_spare()
    (waiting,) = {entry.name for entry in (folder / "sandboxes" / "machines").iterdir()} - {sandbox.id}
    processes = [process for process in processes_of(folder) if waiting in process.cmdline()]
    for process in processes:
        process.kill()
    await ended(processes)
    woken, _ = await host.restore("woken", folder / "image", LIMITS)
    assert {entry.name for entry in (folder / "sandboxes" / "machines").iterdir()} == {sandbox.id, woken.id}


async def test_spare_sandboxes_leave_nothing_when_they_are_given_up_or_the_host_is_closed(host, folder):
    await host.add_spare()
    await host.add_spare()
    assert await host.drop_spare()
    assert len(list((folder / "sandboxes" / "machines").iterdir())) == 1
    await host.close()
    assert list((folder / "sandboxes" / "machines").iterdir()) == []
    assert list((folder / "sandboxes" / "state").iterdir()) == []
    assert processes_of(folder) == []


async def test_an_image_of_a_paused_sandbox_wakes_running(host, sandbox, folder):
    await run(sandbox, 0, "a = 3")
    await sandbox.pause()
    await sandbox.checkpoint(folder / "image")
    woken, _ = await host.restore("woken", folder / "image", LIMITS)
    assert await run(woken, 1, "a + 5") == "8"
    await sandbox.resume()
    assert await run(sandbox, 1, "a + 6") == "9"


async def test_an_image_wakes_where_the_runtime_lies_elsewhere(host, sandbox, runtime, folder):
    await run(sandbox, 0, "a = 3")
    await sandbox.checkpoint(folder / "image")
    elsewhere = GVisorHost(moved(runtime, folder / "moved"), folder / "other")
    try:
        woken, _ = await elsewhere.restore("woken", folder / "image", LIMITS)
        assert await run(woken, 1, "a + 5") == "8"
    finally:
        await elsewhere.close()


async def test_a_checkpoint_into_a_folder_that_exists_changes_nothing(sandbox, folder):
    (folder / "image").mkdir()
    with pytest.raises(SandboxError, match="File exists"):
        await sandbox.checkpoint(folder / "image")
    assert (folder / "image").is_dir()
    assert await run(sandbox, 0, "3 + 5") == "8"


@needs_root
async def test_a_checkpoint_without_room_leaves_no_half_image_and_a_running_sandbox(sandbox, small_disk):
    await run(sandbox, 0, "a = 3")
    with pytest.raises(SandboxError, match="Not enough disk"):
        await sandbox.checkpoint(small_disk / "image")
    assert list(small_disk.iterdir()) == []
    assert await run(sandbox, 1, "a + 5") == "8"


async def test_a_checkpoint_that_hangs_is_given_up_and_the_sandbox_goes_on(host, sandbox, folder):
    await run(sandbox, 0, "a = 3")
    process = psutil.Process(sandbox.pid)
    process.suspend()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await sandbox.checkpoint(folder / "hung")
    process.resume()
    assert await run(sandbox, 1, "a + 5") == "8"
    await sandbox.checkpoint(folder / "image")
    restored, _ = await host.restore("restored", folder / "image", LIMITS)
    assert await run(restored, 2, "a + 6") == "9"


async def test_a_damaged_image_is_refused_and_leaves_nothing(host, sandbox, folder):
    await sandbox.checkpoint(folder / "image")
    (folder / "image" / "checkpoint.img").write_bytes(b"nonsense")
    with pytest.raises(SandboxError, match="runsc restore"):
        await host.restore("damaged", folder / "image", LIMITS)
    assert [entry.name for entry in (folder / "sandboxes" / "machines").iterdir()] == [sandbox.id]


async def test_a_destroyed_sandbox_leaves_nothing_and_may_be_destroyed_again(sandbox, folder):
    await run(sandbox, 0, "import subprocess; child = subprocess.Popen(['sleep', '1000'])")
    family = [psutil.Process(sandbox.pid), *psutil.Process(sandbox.pid).children(recursive=True)]
    assert len(family) > 2
    await asyncio.gather(sandbox.destroy(), sandbox.destroy())
    await sandbox.destroy()
    await ended(family)
    assert processes_of(folder) == []
    assert list((folder / "sandboxes" / "machines").iterdir()) == []
    assert list((folder / "sandboxes" / "state").iterdir()) == []
    assert cgroups_named(sandbox.id) == []
    with pytest.raises(SandboxDied):
        await sandbox.execute(0, 0, "1", replaying=False)


async def test_a_start_that_is_cancelled_leaves_nothing(host, folder):
    await host.remove_leftovers()
    starting = asyncio.create_task(host.start("cancelled", LIMITS))
    while not list((folder / "sandboxes" / "machines").glob("*/pid")):
        await asyncio.wait({starting}, timeout=0.01)
    starting.cancel()
    await asyncio.wait({starting})
    assert starting.cancelled()
    assert processes_of(folder) == []
    assert list((folder / "sandboxes" / "machines").iterdir()) == []
    assert list((folder / "sandboxes" / "state").iterdir()) == []


@needs_root
async def test_every_process_of_a_sandbox_is_in_its_cgroups(sandbox):
    await run(sandbox, 0, "import subprocess; child = subprocess.Popen(['sleep', '1000'])")
    lists = [folder / "cgroup.procs" for folder in cgroups_named(sandbox.id)]
    if not lists:
        pytest.skip("this host has no writable cgroups")
    family = {sandbox.pid, *(child.pid for child in psutil.Process(sandbox.pid).children(recursive=True))}
    for members in lists:
        assert family <= {int(line) for line in members.read_text().split()}


async def test_when_its_process_ends_the_receiver_is_told(sandbox):
    await run(sandbox, 0, "a = 3")
    os.kill(sandbox.pid, signal.SIGKILL)
    assert await ending(sandbox) == SandboxLost("its process ended")
    with pytest.raises(SandboxDied):
        await sandbox.receive()
    await sandbox.destroy()


HOARD = """
import mmap, os, time
{take}
time.sleep(1000)
"""
BY = {
    "a list": "hoard = [bytearray(b'x') * 2**20 for _ in range(2000)]",
    "a memfd": ("fd = os.memfd_create('hoard')\nfor _ in range(2000): os.write(fd, b'x' * 2**20)"),
    "files in /tmp": (
        "keep = bytearray(b'x') * (450 * 2**20)\n"
        "with open('/tmp/hoard', 'wb') as file:\n"
        "    for _ in range(180): file.write(b'x' * 2**20)"
    ),
    "children": (
        "for _ in range(6):\n"
        "    if os.fork() == 0:\n"
        "        hoard = bytearray(b'x') * (200 * 2**20)\n"
        "        time.sleep(1000)"
    ),
}


@pytest.mark.parametrize("by", BY)
async def test_memory_over_the_limit_ends_in_a_clear_reason_and_is_given_back(host, by):
    sandbox = await host.start("greedy", LIMITS)
    await sandbox.execute(0, 0, HOARD.format(take=BY[by]), replaying=False)
    highest = 0
    receiving = asyncio.ensure_future(ending(sandbox))
    async with asyncio.timeout(60):
        # Children may be killed while the instruction sleeps on in their parent.
        while not (receiving.done() or highest > LIMITS.memory_bytes > 1.3 * sandbox.memory_bytes()):
            highest = max(highest, sandbox.memory_bytes())
            await asyncio.wait({receiving}, timeout=0.02)
        while sandbox.memory_bytes() > LIMITS.memory_bytes:
            await asyncio.to_thread(time.sleep, 0.02)
    receiving.cancel()
    await asyncio.wait({receiving})
    if not receiving.cancelled():
        event = receiving.result()
        if isinstance(event, Result):
            assert event.error is not None
            assert event.error["name"] == "MemoryError"
        else:
            assert isinstance(event, InterpreterDied | SandboxLost)
            assert event.reason == "used more than its 512 MiB of memory"


async def test_leftovers_of_a_killed_process_are_removed_and_other_folders_left_alone(host, sandbox, runtime, folder):
    await run(sandbox, 0, "a = 3")
    crashed = folder / "crashed"
    crashed.mkdir()
    command = [sys.executable, OWNER, "hold", crashed, runtime.runsc.parent]
    owner = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert owner.stdout is not None
    container = (await asyncio.wait_for(owner.stdout.readline(), 60)).decode().strip()
    assert container
    owner.kill()
    await owner.wait()
    assert processes_of(crashed)

    successor = GVisorHost(runtime, crashed / "sandboxes")
    assert await successor.remove_leftovers() == 1
    assert processes_of(crashed) == []
    assert list((crashed / "sandboxes" / "machines").iterdir()) == []
    assert list((crashed / "sandboxes" / "state").iterdir()) == []
    assert cgroups_named(container) == []
    assert await successor.remove_leftovers() == 0
    await successor.close()
    assert await host.remove_leftovers() == 0
    assert await run(sandbox, 1, "a + 5") == "8"


async def test_a_container_whose_process_id_is_somebody_elses_now_is_forgotten_without_killing(host, folder):
    bystander = await asyncio.create_subprocess_exec("sleep", "1000")
    await host.remove_leftovers()
    state = {"id": "0123", "sandbox": {"id": "0123", "pid": bystander.pid}, "goferPid": bystander.pid}
    (folder / "sandboxes" / "state" / "0123_sandbox:0123.state").write_text(json.dumps(state))
    assert await host.remove_leftovers() == 1
    assert list((folder / "sandboxes" / "state").iterdir()) == []
    assert bystander.returncode is None
    bystander.terminate()
    assert await bystander.wait() == -signal.SIGTERM


async def test_libraries_keep_to_the_baseline_of_the_processor(sandbox):
    await run(sandbox, 0, "import numpy, threadpoolctl")
    assert await run(sandbox, 1, "{pool['architecture'] for pool in threadpoolctl.threadpool_info()}") == "{'Haswell'}"
    flags = await run(sandbox, 2, "[line for line in open('/proc/cpuinfo') if line.startswith('flags')][0]")
    assert flags is not None
    assert "avx2" in flags
    assert "avx512" not in flags


async def test_an_ordinary_user_runs_saves_and_wakes_a_sandbox(runtime, folder):
    place, code = folder / "user", folder / "code"
    place.mkdir()
    place.chmod(0o777)
    for package in (torpor_worker, torpor_snapshotter):
        source = Path(str(package.__file__)).parent
        shutil.copytree(source, code / source.name)
    readable = moved(runtime, folder / "runtime")
    environment = {**os.environ, "TORPOR_TEST_USER": NOBODY, "HOME": str(place), "PYTHONPATH": str(code)}
    command = [sys.executable, OWNER, "journey", place, readable.runsc.parent]
    owner = await asyncio.create_subprocess_exec(*command, env=environment, stdout=subprocess.PIPE)
    printed, _ = await asyncio.wait_for(owner.communicate(), 120)
    assert printed.decode().split()[-1:] == ["8"]
    assert processes_of(place) == []
