"""What of a log is too old goes from its beginning, is marked where it was, and is never what a recovery needs."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tests.support.ledger import ACCOUNT, awake, new_machine, ran, result, saved, started, stdout

from torpor_api.errors import PointUnreachable
from torpor_api.ledger import LogRetention, Point, SqlLedger
from torpor_api.ledger.database import FILE_NAME
from torpor_api.ledger.expiry import KEPT_ALWAYS
from torpor_worker.ledger import Hold

ALL = LogRetention(log_days=1, output_days=1, events_days=1)
LONG = b"x" * 200_000


async def filled(ledger: SqlLedger, folder: Path, *, saves: tuple[int, ...], output: bytes = b"said") -> Hold:
    """A machine with three instructions more than are always kept, all from long ago, and saves after some of them."""
    hold = await awake(ledger, await new_machine(ledger))
    head = None
    for number in range(KEPT_ALWAYS + 3):
        entry = await started(ledger, hold, f"code {number}")
        assert entry.seq is not None
        await ledger.finish(hold, entry.seq, 1, result("1"), output=[stdout(output if number < 3 else b"new")])
        if number in saves:
            head = (await saved(ledger, hold, head, number + 1)).generation
    with closing(sqlite3.connect(folder / FILE_NAME, timeout=60)) as database, database:
        database.execute("UPDATE entries SET finished_at = 0 WHERE finished_at IS NOT NULL")
        database.execute("UPDATE events SET at = 0")
    return hold


async def everything_expired(ledger: SqlLedger, retention: LogRetention = ALL) -> None:
    for _ in range(2):  # files go in the round after their rows
        after = await ledger.expire(retention)
        while after:
            after = await ledger.expire(retention, after)


async def expired(ledger: SqlLedger, machine: str) -> list[int]:
    rows, _ = await ledger.instructions(ACCOUNT, machine)
    return sorted(row.seq for row in rows if row.expired)


async def test_old_code_and_results_go_and_say_so_and_the_newest_stay_however_old(
    ledger: SqlLedger, tmp_path: Path
) -> None:
    hold = await filled(ledger, tmp_path, saves=(5, 6))
    await everything_expired(ledger)
    assert await expired(ledger, hold.machine) == [0, 1, 2]
    gone = await ledger.instruction(ACCOUNT, hold.machine, 2)
    assert (gone.code, gone.result, gone.status, gone.output_expired) == ("", None, "finished", True)
    kept = await ledger.instruction(ACCOUNT, hold.machine, 3)
    assert (kept.code, kept.result, kept.output_expired) == ("code 3", result("1"), False)


async def test_what_a_recovery_from_the_second_newest_state_at_rest_needs_stays_in_the_log(
    ledger: SqlLedger, tmp_path: Path
) -> None:
    hold = await filled(ledger, tmp_path, saves=(1, 2))
    await everything_expired(ledger)
    assert await expired(ledger, hold.machine) == [0, 1]
    unsaved = await filled(ledger, tmp_path, saves=(5,))
    await everything_expired(ledger)
    assert await expired(ledger, unsaved.machine) == []


async def test_output_goes_with_its_files_and_a_page_says_that_there_was_some(
    ledger: SqlLedger, tmp_path: Path
) -> None:
    hold = await filled(ledger, tmp_path, saves=(), output=LONG)
    folder = tmp_path / "output" / hold.machine
    assert list(folder.iterdir())
    page = await ledger.output(hold.machine, 0)
    assert (len(page.records[0][1].data), page.expired) == (len(LONG), False)
    await everything_expired(ledger)
    page = await ledger.output(hold.machine, 0)
    assert (page.records, page.finished, page.expired) == ([], True, True)
    assert (await ledger.output(hold.machine, 3)).records[0][1].data == b"new"
    assert not list(folder.iterdir())
    seq = await ran(ledger, hold)
    await ledger.append_output(hold, seq, 1, [stdout(LONG)], background=True)
    page = await ledger.output(hold.machine, seq, background=True)
    assert page.records[0][1].data == LONG


async def test_a_point_whose_log_has_expired_is_refused_and_the_nearest_is_named(
    ledger: SqlLedger, tmp_path: Path
) -> None:
    hold = await filled(ledger, tmp_path, saves=(5, 6))
    await everything_expired(ledger)
    with pytest.raises(PointUnreachable, match="not kept any more") as refused:
        await ledger.place_to_fork(ACCOUNT, hold.machine, Point(seq=2))
    assert '{"generation": 0}' in str(refused.value.hint)


async def test_events_that_expire_leave_one_that_counts_them(ledger: SqlLedger, tmp_path: Path) -> None:
    machine = await new_machine(ledger)
    for action in ("woke", "slept"):
        await ledger.event(machine, action)
    with closing(sqlite3.connect(tmp_path / FILE_NAME, timeout=60)) as database, database:
        database.execute("UPDATE events SET at = 0")
    await ledger.event(machine, "woke")
    await everything_expired(ledger)
    newest, marker = await ledger.events(machine)
    assert (newest.action, marker.action, marker.fields) == ("woke", "expired", {"events": 2})


async def test_nothing_of_a_parked_machine_expires_nor_anything_that_is_to_be_kept_for_ever(
    ledger: SqlLedger, tmp_path: Path
) -> None:
    hold = await filled(ledger, tmp_path, saves=(5, 6))
    await everything_expired(ledger, LogRetention())
    await ledger.park(hold, "it cannot live")
    await everything_expired(ledger)
    assert await expired(ledger, hold.machine) == []
