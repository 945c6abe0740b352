"""How a sandbox's memory is counted, and what happens to one that takes too much."""

import asyncio
import os
from dataclasses import dataclass, field

import pytest

from torpor_worker.gvisor import watcher
from torpor_worker.gvisor.memory import MemoryFile, private_bytes
from torpor_worker.gvisor.watcher import MemoryWatcher
from torpor_worker.sandbox import Limits

MEBIBYTE = 1024**2


def test_memory_of_its_own_is_what_is_resident_but_not_shared():
    assert private_bytes("1320041 9874 7012 14321 0 48760 0\n") == (9874 - 7012) * os.sysconf("SC_PAGE_SIZE")
    assert private_bytes("10 3 4 0 0 0 0\n") == 0


def test_a_memory_file_counts_what_it_holds_not_what_it_spans():
    descriptor = os.memfd_create("runsc-memory")
    try:
        os.truncate(descriptor, 1024 * MEBIBYTE)
        os.pwrite(descriptor, b"x" * 3 * MEBIBYTE, 512 * MEBIBYTE)
        assert MemoryFile(os.getpid()).used_bytes() == 3 * MEBIBYTE
    finally:
        os.close(descriptor)


def test_the_memory_of_a_process_that_is_gone_is_nothing():
    gone = MemoryFile(2**22 + 1)
    assert gone.used_bytes() == 0
    assert gone.overhead_bytes() == 0


@dataclass(eq=False)
class Guest:
    """A sandbox of the watcher's whose memory the test sets; a kill frees it if it `yields`."""

    used: int
    yields: bool = True
    overhead: int = 0
    paused: bool = False
    limits: Limits = field(default_factory=lambda: Limits(memory_bytes=512 * MEBIBYTE))
    kills: list[str] = field(default_factory=list)
    lost: asyncio.Future[str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    killed: asyncio.Event = field(default_factory=asyncio.Event)

    def memory_bytes(self) -> int:
        return self.used

    def overhead_bytes(self) -> int:
        return self.overhead

    async def kill_largest(self, reason: str) -> None:
        self.kills.append(reason)
        if self.yields:
            self.used = 0
        self.killed.set()

    async def lose(self, reason: str) -> None:
        self.lost.set_result(reason)


@pytest.fixture
async def memory_watcher():
    memory_watcher = MemoryWatcher()
    task = asyncio.create_task(memory_watcher.run())
    yield memory_watcher
    task.cancel()
    await asyncio.wait({task})


async def test_over_its_limit_and_a_tenth_the_largest_process_is_killed(memory_watcher):
    modest, greedy = Guest(used=540 * MEBIBYTE), Guest(used=570 * MEBIBYTE)
    memory_watcher.add(modest)
    memory_watcher.add(greedy)
    await greedy.killed.wait()
    assert greedy.kills == ["used more than its 512 MiB of memory"]
    assert not modest.kills


async def test_a_sandbox_that_grows_later_is_seen(memory_watcher):
    guest = Guest(used=MEBIBYTE)
    memory_watcher.add(guest)
    await asyncio.sleep(0)
    guest.used = 600 * MEBIBYTE
    await guest.killed.wait()


async def test_use_that_stays_over_the_limit_after_the_kills_ends_the_sandbox(memory_watcher):
    guest = Guest(used=600 * MEBIBYTE, yields=False)
    memory_watcher.add(guest)
    assert await guest.lost == "used more than its 512 MiB of memory"
    assert len(guest.kills) == watcher.KILLS


async def test_far_over_its_limit_a_sandbox_ends_at_once(memory_watcher):
    guest = Guest(used=0, overhead=3 * 1024 * MEBIBYTE)
    memory_watcher.add(guest)
    assert await guest.lost == "used more than its 512 MiB of memory"
    assert not guest.kills
