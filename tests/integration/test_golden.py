"""Snapshots that an earlier version made wake on real gVisor, with nothing but what is checked in and the binary."""

import asyncio
from pathlib import Path

import pytest
from tests.support.golden_binary import binary_for

from torpor_worker.golden import Golden, GoldenFailed, goldens, wake

pytestmark = pytest.mark.integration

FOLDER = Path(__file__).parents[1] / "golden"


def quiet(task: str, fraction: float | None = None) -> None:
    """Report to nobody."""


@pytest.mark.parametrize("golden", goldens(FOLDER), ids=lambda golden: golden.folder.name)
async def test_golden_snapshots_wake(golden: Golden, folder: Path) -> None:
    await wake(golden, await asyncio.to_thread(binary_for, golden), folder, quiet)


async def test_a_binary_that_does_not_wake_golden_snapshots_is_told_apart(folder: Path) -> None:
    [golden, *_] = goldens(FOLDER)
    good = await asyncio.to_thread(binary_for, golden)
    bad = folder / "bad"
    script = f'#!/bin/sh\ncase "$*" in *restore*) echo no such state >&2; exit 1;; esac\nexec {good} "$@"\n'
    await asyncio.to_thread(bad.write_text, script)
    bad.chmod(0o755)

    with pytest.raises(GoldenFailed, match=r"first: .*restore"):
        await wake(golden, bad, folder / "scratch", quiet)
