"""Rollbacks and pins: what is left behind never runs again, whatever happens afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.ledger import (
    ACCOUNT,
    accepted,
    awake,
    key,
    let_years_pass,
    new_machine,
    open_ledger,
    ran,
    result,
    saved,
    started,
)

from torpor_api.errors import InstructionNotFound, MachineBusy, PointUnreachable, SnapshotNotFound
from torpor_api.ledger import Point, RolledBack, SqlLedger
from torpor_api.ledger.rollbacks import Unsettled
from torpor_worker.ledger import EndedBy, Fenced, Hold


async def roll_back(ledger: SqlLedger, machine: str, **to: int) -> RolledBack:
    return await ledger.roll_back(ACCOUNT, machine, Point(**to), answer=lambda done: {"line": done.line})


async def slept(ledger: SqlLedger, hold: Hold, head: int | None) -> int:
    """The generation under which a machine fell asleep that ran one more instruction."""
    await ran(ledger, hold)
    entries = await ledger.behind(hold, -1)
    position = entries[-1].position
    assert position is not None
    snapshot = await saved(ledger, hold, head, position)
    assert await ledger.release(hold, snapshot.generation)
    return snapshot.generation


async def replayed(ledger: SqlLedger, machine: str) -> list[int | None]:
    """Seqs that the next wake of the machine finds behind its head."""
    hold = await ledger.acquire(machine)
    assert hold is not None
    position = -1 if hold.head is None else hold.head.position
    seqs = [entry.seq for entry in await ledger.behind(hold, position)]
    await ledger.open_session("the next life")
    return seqs


async def marked(ledger: SqlLedger, machine: str) -> list[int]:
    rows, _ = await ledger.instructions(ACCOUNT, machine)
    return sorted(row.seq for row in rows if row.rolled_back)


async def test_a_rollback_leaves_what_came_after_the_point_behind_and_names_the_way_back(
    ledger: SqlLedger, hold: Hold
) -> None:
    first = await slept(ledger, hold, None)
    second = await slept(ledger, await awake(ledger, hold.machine), first)
    done = await roll_back(ledger, hold.machine, generation=first)

    assert (done.generation, done.undo, done.left_behind, done.replayed) == (first, second, [1], [])
    assert await marked(ledger, hold.machine) == [1]
    assert (await ledger.machine(ACCOUNT, hold.machine)).undo == second
    again = await awake(ledger, hold.machine)
    assert (again.line, again.head and again.head.generation) == (done.line, first)
    assert (await started(ledger, again)).seq == 2
    assert [row.current for row in await ledger.snapshots(ACCOUNT, hold.machine)] == [False, True]


async def test_an_undone_rollback_has_again_what_it_had_left_behind(ledger: SqlLedger, hold: Hold) -> None:
    first = await slept(ledger, hold, None)
    second = await slept(ledger, await awake(ledger, hold.machine), first)
    await roll_back(ledger, hold.machine, generation=first)
    other = await slept(ledger, await awake(ledger, hold.machine), first)
    done = await roll_back(ledger, hold.machine, generation=second)

    assert (done.undo, done.left_behind) == (other, [2])
    assert await marked(ledger, hold.machine) == [2]
    back = await ledger.go_back((await awake(ledger, hold.machine)), None)
    assert [entry.seq for entry in await ledger.behind(back, -1)] == [None, 0, 1]


async def test_what_is_left_behind_stays_so_when_recovery_goes_back_to_the_empty_interpreter(
    ledger: SqlLedger, hold: Hold
) -> None:
    first = await slept(ledger, hold, None)
    await slept(ledger, await awake(ledger, hold.machine), first)
    await roll_back(ledger, hold.machine, generation=first)
    again = await awake(ledger, hold.machine)
    await ran(ledger, again)
    back = await ledger.go_back(again, None)

    assert [entry.seq for entry in await ledger.behind(back, -1)] == [None, 0, 2]
    assert await ledger.generations(back) == []


async def test_a_rollback_survives_a_crash_right_after_it(ledger: SqlLedger, hold: Hold, tmp_path: Path) -> None:
    first = await slept(ledger, hold, None)
    await slept(ledger, await awake(ledger, hold.machine), first)
    await roll_back(ledger, hold.machine, generation=first)
    await ledger.close()
    again = await open_ledger(tmp_path)

    assert await replayed(again, hold.machine) == []
    assert await marked(again, hold.machine) == [1]
    await again.close()


async def test_a_save_that_was_in_flight_cannot_be_committed_after_a_rollback(ledger: SqlLedger, hold: Hold) -> None:
    first = await slept(ledger, hold, None)
    held = await awake(ledger, hold.machine)
    _, in_flight = await ledger.allot_save(held)
    assert await ledger.release(held, first)
    await roll_back(ledger, hold.machine, generation=first)

    assert in_flight in await ledger.condemned()
    with pytest.raises(Fenced):
        await saved(ledger, held, first, 1)


async def test_a_seq_is_reached_from_the_newest_generation_before_it(ledger: SqlLedger, hold: Hold) -> None:
    first = await slept(ledger, hold, None)
    again = await awake(ledger, hold.machine)
    await ran(ledger, again)
    await ran(ledger, again)
    second = await slept(ledger, again, first)
    done = await roll_back(ledger, hold.machine, seq=2)

    assert (done.generation, done.undo, done.left_behind, done.replayed) == (first, second, [3], [1, 2])
    assert await replayed(ledger, hold.machine) == [1, 2]


async def test_a_seq_that_was_left_behind_can_be_reached_too(ledger: SqlLedger, hold: Hold) -> None:
    first = await slept(ledger, hold, None)
    second = await slept(ledger, await awake(ledger, hold.machine), first)
    await roll_back(ledger, hold.machine, generation=first)
    await slept(ledger, await awake(ledger, hold.machine), first)
    done = await roll_back(ledger, hold.machine, seq=1)

    assert (done.generation, done.left_behind, done.replayed) == (second, [2], [])


async def test_a_seq_behind_a_time_out_is_unreachable_and_the_nearest_points_are_named(
    ledger: SqlLedger, hold: Hold
) -> None:
    await ran(ledger, hold)
    entry = await started(ledger, hold)
    assert entry.seq == 1
    await ledger.finish(hold, 1, 1, result(error="Timed out"), ended_by=EndedBy.TIMEOUT)
    await ran(ledger, hold)
    last = await slept(ledger, hold, None)

    with pytest.raises(PointUnreachable) as refused:
        await roll_back(ledger, hold.machine, seq=2)
    assert refused.value.hint == f'The nearest points: {{"seq": 0}} and {{"generation": {last}}}.'
    assert (await roll_back(ledger, hold.machine, seq=3)).replayed == []
    assert (await roll_back(ledger, hold.machine, seq=0)).replayed == [0]


async def test_points_that_are_not_there_are_refused_and_nothing_changes(ledger: SqlLedger, hold: Hold) -> None:
    first = await slept(ledger, hold, None)
    with pytest.raises(SnapshotNotFound):
        await roll_back(ledger, hold.machine, generation=first + 1)
    with pytest.raises(InstructionNotFound):
        await roll_back(ledger, hold.machine, seq=1)
    again = await awake(ledger, hold.machine)
    with pytest.raises(Unsettled):
        await roll_back(ledger, hold.machine, generation=first)
    await accepted(ledger, hold.machine)
    with pytest.raises(MachineBusy):
        await roll_back(ledger, hold.machine, generation=first)
    assert await ledger.start_next(again) is not None


async def test_a_parked_machine_goes_on_from_where_it_is_rolled_back_to(ledger: SqlLedger, hold: Hold) -> None:
    first = await slept(ledger, hold, None)
    again = await awake(ledger, hold.machine)
    await ran(ledger, again)
    await ledger.park(again, "it cannot live")
    done = await roll_back(ledger, hold.machine, generation=first)

    assert (done.undo, done.left_behind) == (None, [1])
    assert (await ledger.machine(ACCOUNT, hold.machine)).state == "asleep"
    assert await replayed(ledger, hold.machine) == []


async def test_a_repeated_rollback_has_one_effect(ledger: SqlLedger, hold: Hold) -> None:
    first = await slept(ledger, hold, None)
    point, idempotency = Point(generation=first), key("again")
    await ledger.roll_back(
        ACCOUNT, hold.machine, point, answer=lambda done: {"line": done.line}, idempotency=idempotency
    )

    assert await ledger.recall(ACCOUNT, idempotency) == {"line": 1}


async def test_pinned_generations_and_the_way_back_outlive_newer_ones(
    ledger: SqlLedger, hold: Hold, tmp_path: Path
) -> None:
    pinned = await slept(ledger, hold, None)
    await ledger.pin(ACCOUNT, hold.machine, pinned, pinned=True)
    head = undo = await slept(ledger, await awake(ledger, hold.machine), pinned)
    await roll_back(ledger, hold.machine, generation=pinned)
    head = pinned
    for _ in range(4):
        let_years_pass(tmp_path)
        head = await slept(ledger, await awake(ledger, hold.machine), head)
    kept = [row.snapshot.generation for row in await ledger.snapshots(ACCOUNT, hold.machine)]
    assert kept == [head, head - 1, undo, pinned]

    await ledger.pin(ACCOUNT, hold.machine, pinned, pinned=False)
    let_years_pass(tmp_path)
    await slept(ledger, await awake(ledger, hold.machine), head)
    assert pinned not in [row.snapshot.generation for row in await ledger.snapshots(ACCOUNT, hold.machine)]


async def test_a_snapshot_tells_the_last_instruction_that_is_finished_in_it(ledger: SqlLedger) -> None:
    machine = await new_machine(ledger)
    hold = await awake(ledger, machine)
    await saved(ledger, hold, None, 0)
    await ran(ledger, hold)
    await started(ledger, hold)
    await saved(ledger, hold, 0, 2, running_seq=1)

    rows = await ledger.snapshots(ACCOUNT, machine)
    assert [(row.seq, row.snapshot.quiescent) for row in rows] == [(0, False), (None, True)]
