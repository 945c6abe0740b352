"""How sandbox commands fail and end, with a shell script in the place of the binary."""

import asyncio
from pathlib import Path

import psutil
import pytest
from tests.support.sandboxes import ended

from torpor_worker.gvisor.fifos import Fifos
from torpor_worker.gvisor.runsc import Runsc
from torpor_worker.sandbox import SandboxError


def runsc(folder: Path, script: str) -> Runsc:
    binary = folder / "runsc"
    binary.write_text(f"#!/bin/sh\n{script}\n")
    binary.chmod(0o755)
    return Runsc(binary, folder, folder / "state")


async def test_a_failed_command_says_which_and_what_it_printed(tmp_path):
    broken = runsc(tmp_path, "printf 'checkpoint failed: no space left\\n\\tgvisor.dev/gvisor/stack\\n' >&2; exit 128")
    with pytest.raises(SandboxError, match=r"^`runsc pause` failed with status 128: checkpoint failed: no space left$"):
        await broken.pause("abc")


async def test_a_failed_creation_says_what_its_log_says(tmp_path):
    script = 'echo "creating container: no such file" > create.log; exit 1'
    broken = runsc(tmp_path, script)
    fifos = Fifos.make(tmp_path / "abc", "machine")
    with pytest.raises(SandboxError, match="`runsc create` failed with status 1: creating container: no such file"):
        await broken.create("abc", tmp_path, tmp_path, fifos)  # the folder that is current is the log's too


async def test_a_cancelled_command_takes_what_it_started_with_it(tmp_path):
    hanging = runsc(tmp_path, "sleep 1000 & echo $! > child; wait")
    pausing = asyncio.create_task(hanging.pause("abc"))
    child = tmp_path / "child"
    while not (child.exists() and child.read_text().strip()):
        await asyncio.wait({pausing}, timeout=0.02)
    process = psutil.Process(int(child.read_text()))
    pausing.cancel()
    await asyncio.wait({pausing})
    assert pausing.cancelled()
    await ended([process])


async def test_a_command_that_is_cancelled_while_it_starts_leaves_nothing_behind(tmp_path):
    hanging = runsc(tmp_path, "sleep 1000 & echo $! > child; wait")
    for turns in range(8):
        pausing = asyncio.create_task(hanging.pause("abc"))
        for _ in range(turns):
            await asyncio.sleep(0)
        pausing.cancel()
        await asyncio.wait({pausing})
        assert pausing.cancelled()
    children = [one for one in psutil.process_iter(["cmdline"]) if str(tmp_path) in (one.info["cmdline"] or [])]
    await ended(children)


async def test_a_flag_that_the_binary_does_not_know_is_left_out(tmp_path):
    old = runsc(tmp_path, 'for word; do if [ "$word" = --new ]; then exit 2; fi; done')
    assert (await old.with_flag("--new")).flags == ()
    assert (await old.with_flag("--known")).flags == ("--known",)
