from __future__ import annotations

import pytest
from tests.support.ledger import ACCOUNT, ran, saved, started

from torpor_api.ledger import SqlLedger
from torpor_api.ledger.notices import NOTICES_KEPT
from torpor_worker.ledger import Hold


async def told(ledger: SqlLedger, machine: str) -> list[str]:
    return [notice.message for notice in (await ledger.machine(ACCOUNT, machine)).notices]


async def test_a_notice_is_carried_until_it_was_delivered_and_stays_in_the_detail(
    ledger: SqlLedger, hold: Hold
) -> None:
    await ledger.notice(hold, "replayed", "replayed 2", [3, 4])
    [notice] = await ledger.read_notices(hold.machine)
    await ledger.notice(hold, "differed", "one differs", [4])
    await ledger.deliver_notices(hold.machine, notice.id)

    assert (notice.code, notice.message, notice.seqs) == ("replayed", "replayed 2", [3, 4])
    assert [notice.code for notice in await ledger.read_notices(hold.machine)] == ["differed"]
    assert await told(ledger, hold.machine) == ["replayed 2", "one differs"]


async def test_an_unread_notice_of_the_same_code_is_replaced(ledger: SqlLedger, hold: Hold) -> None:
    await ledger.notice(hold, "save_failed", "first", [])
    await ledger.notice(hold, "save_failed", "second", [])

    assert await told(ledger, hold.machine) == ["second"]


async def test_notices_are_cleared_by_code_or_all(ledger: SqlLedger, hold: Hold) -> None:
    for code in ("a", "b", "c"):
        await ledger.notice(hold, code, code, [])
    await ledger.clear_notices(hold, "a", "b")
    assert await told(ledger, hold.machine) == ["c"]
    await ledger.clear_notices(hold)
    assert await told(ledger, hold.machine) == []


async def test_a_clean_sleep_ends_what_was_told_and_keeps_what_nobody_has_read(ledger: SqlLedger, hold: Hold) -> None:
    await ledger.notice(hold, "replayed", "read", [])
    [notice] = await ledger.read_notices(hold.machine)
    await ledger.deliver_notices(hold.machine, notice.id)
    await ledger.notice(hold, "differed", "unread", [])
    await saved(ledger, hold, None, 0)
    assert await ledger.release(hold, 0)

    assert await told(ledger, hold.machine) == ["unread"]


async def test_notices_and_events_are_bounded(ledger: SqlLedger, hold: Hold) -> None:
    for number in range(NOTICES_KEPT + 1):
        await ledger.notice(hold, f"code {number}", str(number), [])
    for number in range(3):
        await ledger.event(hold.machine, "woke", number=number)
    await ledger.event("nobody", "woke")

    assert (await told(ledger, hold.machine))[0] == "1"
    events = await ledger.events(hold.machine, limit=2)
    assert [(event.action, event.fields) for event in events] == [("woke", {"number": 2}), ("woke", {"number": 1})]


async def test_what_is_undone_or_set_aside_is_said_in_the_same_step(ledger: SqlLedger, hold: Hold) -> None:
    await ran(ledger, hold)
    await started(ledger, hold)
    with pytest.raises(ValueError, match="not finished"):
        await ledger.undo(hold, 1, "of which nothing is known")
    with pytest.raises(ValueError, match="no generation 7"):
        await ledger.go_back(hold, 7, "which is not kept")
    assert await ledger.read_notices(hold.machine) == []
    await ledger.undo(hold, 0, "it killed its process")
    back = await ledger.go_back(hold, None, "the head was of no use")
    said = {notice.code: (notice.message, notice.seqs) for notice in await ledger.read_notices(back.machine)}
    assert said == {"undone": ("it killed its process", [0]), "set_aside": ("the head was of no use", [])}
