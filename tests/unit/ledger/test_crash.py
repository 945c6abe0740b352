from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.ledger import ACCOUNT, result

from torpor_api.ledger import SqlLedger

ROOT = Path(__file__).parents[3]


def acknowledged_before_a_kill(folder: Path, lines_before_the_kill: int) -> list[list[str]]:
    command = [sys.executable, "-m", "tests.support.ledger_child", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(lines_before_the_kill)]
        child.kill()
        lines += child.stdout.readlines()
    assert all(lines[:lines_before_the_kill])
    return [line.split() for line in lines if line.endswith("\n")]


@pytest.mark.parametrize("lines_before_the_kill", [30, 101, 250])
async def test_everything_acknowledged_is_there_after_a_kill(tmp_path: Path, lines_before_the_kill: int) -> None:
    acknowledged = await asyncio.to_thread(acknowledged_before_a_kill, tmp_path, lines_before_the_kill)

    ledger = await SqlLedger.open("sqlite:", tmp_path)
    await ledger.open_session("the next life")
    machines = {machine for _, machine, _ in acknowledged}
    assert machines <= set(await ledger.mine())
    for machine in machines:
        hold = await ledger.acquire(machine)
        assert hold is not None
        entries = await ledger.behind(hold, -1)
        assert [entry.position for entry in entries] == list(range(len(entries)))
        assert [entry.seq for entry in entries[1:]] == list(range(len(entries) - 1))
    for fact, machine, number in acknowledged:
        seq = int(number)
        if fact == "saved":
            row = await ledger.machine(ACCOUNT, machine)
            assert row.generation is not None
            assert row.generation >= seq
        elif fact == "accepted":
            assert (await ledger.instruction(ACCOUNT, machine, seq)).status != "accepted"
        else:
            answer = await ledger.outcome(ACCOUNT, machine, seq)
            assert answer.instruction.result == result(number)
            size_bytes = 70_000 if seq % 3 == 0 else 10
            output = b"".join(record.data for _, record in answer.output.records)
            assert output == b"s" * size_bytes + b"e" * size_bytes
    await ledger.close()
