from __future__ import annotations

import pytest
from tests.support.ledger import ACCOUNT, ran, result, started, stdout

from torpor_api.errors import InstructionNotFound
from torpor_api.ledger import Outcome, SqlLedger
from torpor_worker.ledger import EndedBy, Hold, InstructionResult

RICH = InstructionResult(
    value=None,
    data={},
    error="ZeroDivisionError: division by zero",
    error_detail={"name": "ZeroDivisionError", "message": "division by zero", "traceback": ["1/0"], "steps": []},
    runtime_ms=12,
)


async def test_a_result_is_read_as_it_was_committed(ledger: SqlLedger, hold: Hold) -> None:
    await started(ledger, hold)
    await ledger.finish(hold, 0, 1, RICH, undone=True, ended_by=EndedBy.TIMEOUT)
    await started(ledger, hold)
    await ledger.finish(hold, 1, 1, InstructionResult("8", {"image/png": "aGk="}, None, None, 3))

    first, second = [await ledger.instruction(ACCOUNT, hold.machine, seq) for seq in (0, 1)]
    assert (first.result, first.undone, first.ended_by) == (RICH, True, EndedBy.TIMEOUT)
    assert (second.result, second.undone) == (InstructionResult("8", {"image/png": "aGk="}, None, None, 3), False)
    [_, entry, _] = await ledger.behind(hold, -1)
    assert (entry.result, entry.undone, entry.ended_by) == (RICH, True, EndedBy.TIMEOUT)


async def test_the_first_result_of_a_seq_stays(ledger: SqlLedger, hold: Hold) -> None:
    await ran(ledger, hold, "first")
    await ledger.finish(hold, 0, 1, result("second"))
    await ledger.finish(hold, 0, 2, result("third"), undone=True)

    row = await ledger.instruction(ACCOUNT, hold.machine, 0)
    assert row.result == result("first")
    assert not row.undone


async def test_an_attempt_that_is_over_cannot_finish(ledger: SqlLedger, hold: Hold) -> None:
    await started(ledger, hold)
    assert await ledger.count_attempt(hold, 0, 0) == 2

    with pytest.raises(ValueError, match="attempt 1"):
        await ledger.finish(hold, 0, 1, result("too late"))
    await ledger.finish(hold, 0, 2, result("in time"))
    row = await ledger.instruction(ACCOUNT, hold.machine, 0)
    assert (row.attempt, row.result) == (2, result("in time"))


async def test_only_an_instruction_that_runs_gets_another_attempt(ledger: SqlLedger, hold: Hold) -> None:
    await ran(ledger, hold)

    with pytest.raises(ValueError, match="unfinished"):
        await ledger.count_attempt(hold, 0, 0)
    with pytest.raises(ValueError, match="attempt 1"):
        await ledger.finish(hold, 7, 1, result())


async def test_replays_and_undoing_are_marked_on_finished_instructions_only(ledger: SqlLedger, hold: Hold) -> None:
    await ran(ledger, hold)
    await started(ledger, hold)
    await ledger.note_replay(hold, 0)
    await ledger.undo(hold, 0)

    row = await ledger.instruction(ACCOUNT, hold.machine, 0)
    assert (row.replayed, row.undone) == (True, True)
    with pytest.raises(ValueError, match="not finished"):
        await ledger.note_replay(hold, 1)
    with pytest.raises(ValueError, match="not finished"):
        await ledger.undo(hold, 1)


async def test_behind_lists_what_was_started_above_a_position(ledger: SqlLedger, hold: Hold) -> None:
    await ran(ledger, hold, "0")
    await ran(ledger, hold, "1")
    await ledger.undo(hold, 1)
    await started(ledger, hold)

    assert [(entry.seq, entry.undone) for entry in await ledger.behind(hold, 1)] == [(1, True), (2, False)]


async def test_an_unknown_seq_is_not_found(ledger: SqlLedger, machine: str) -> None:
    with pytest.raises(InstructionNotFound):
        await ledger.instruction(ACCOUNT, machine, 0)
    with pytest.raises(InstructionNotFound):
        await ledger.output(machine, 0)


async def test_an_absurd_runtime_is_kept_within_what_a_column_holds(ledger: SqlLedger, hold: Hold) -> None:
    await started(ledger, hold)
    await ledger.finish(hold, 0, 1, InstructionResult("1", {}, None, None, 2**70))

    row = await ledger.instruction(ACCOUNT, hold.machine, 0)
    assert row.result is not None
    assert row.result.runtime_ms == 2**53


async def test_who_waits_for_an_outcome_is_handed_what_a_read_would_give(ledger: SqlLedger, hold: Hold) -> None:
    await started(ledger, hold)
    prepared: list[Outcome] = []
    with (
        ledger.changes.watch(hold.machine, 0, prepared.append) as mine,
        ledger.changes.watch(hold.machine) as another,
    ):
        await ledger.finish(hold, 0, 1, result("8"), output=[stdout("said")])
        read = await ledger.outcome(ACCOUNT, hold.machine, 0)
    assert mine.outcome == read
    assert prepared == [read]
    assert (read.instruction.result, read.output.finished) == (result("8"), True)
    assert another.outcome is None
