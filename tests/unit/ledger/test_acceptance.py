from __future__ import annotations

import pytest
from tests.support.ledger import ACCOUNT, accepted, key, new_machine, ran, result, started

from torpor_api.errors import IdempotencyKeyReused, MachineNotFound, MachineParked, TooManyUnfinished
from torpor_api.ledger import Accepted, Busy, MachineSettings, SqlLedger
from torpor_api.ledger.entries import UNFINISHED_LIMIT
from torpor_worker.ledger import EntryKind, Hold


async def test_the_first_entry_of_a_machine_is_its_reseed_at_position_0(ledger: SqlLedger, hold: Hold) -> None:
    [reseed] = await ledger.behind(hold, -1)

    assert (reseed.kind, reseed.position, reseed.seq, len(reseed.seed)) == (EntryKind.RESEED, 0, None, 32)


async def test_a_machine_that_nobody_has_used_does_not_wait_for_a_worker(ledger: SqlLedger, machine: str) -> None:
    assert await ledger.waiting() == []
    await accepted(ledger, machine)
    assert await ledger.waiting() == [machine]


async def test_an_entry_for_a_sleeping_machine_waits_without_a_position(ledger: SqlLedger, machine: str) -> None:
    answer = await accepted(ledger, machine, "a = 3")

    assert (answer.seq, answer.entry.position, answer.entry.attempt) == (0, None, 0)
    assert (await ledger.instruction(ACCOUNT, machine, 0)).status == "accepted"
    assert (await ledger.machine(ACCOUNT, machine)).has_pending_instruction


async def test_an_entry_for_a_machine_that_is_awake_and_free_is_started_at_once(ledger: SqlLedger, hold: Hold) -> None:
    answer = await accepted(ledger, hold.machine, "a = 3")

    assert (answer.entry.position, answer.entry.attempt) == (1, 1)
    assert await ledger.start_next(hold) == answer.entry


async def test_a_machine_that_is_held_but_not_ready_starts_nothing_by_itself(ledger: SqlLedger, machine: str) -> None:
    hold = await ledger.acquire(machine)
    assert hold is not None

    assert (await accepted(ledger, machine)).entry.position is None
    await ledger.ready(hold)
    assert (await accepted(ledger, machine)).entry.position is None  # behind the first, which still waits


async def test_entries_are_started_in_the_order_of_acceptance(ledger: SqlLedger, machine: str) -> None:
    for _ in range(3):
        await accepted(ledger, machine)
    hold = await ledger.acquire(machine)
    assert hold is not None

    order = []
    while (entry := await ledger.start_next(hold)) is not None:
        assert entry.seq is not None
        order.append((entry.seq, entry.position))
        await ledger.finish(hold, entry.seq, entry.attempt, result())
    assert order == [(0, 1), (1, 2), (2, 3)]


async def test_a_busy_machine_refuses_or_queues_as_the_caller_wants(ledger: SqlLedger, hold: Hold) -> None:
    await accepted(ledger, hold.machine)

    assert await ledger.accept(ACCOUNT, hold.machine, "", 1.0, when_busy="refuse") == Busy(running_seq=0)
    queued = await ledger.accept(ACCOUNT, hold.machine, "", 1.0, when_busy="queue")
    assert isinstance(queued, Accepted)
    assert (queued.seq, queued.entry.position) == (1, None)


async def test_a_machine_whose_entries_all_wait_is_busy_without_a_running_one(ledger: SqlLedger, machine: str) -> None:
    await accepted(ledger, machine)

    assert await ledger.accept(ACCOUNT, machine, "", 1.0, when_busy="refuse") == Busy(running_seq=0)


async def test_another_accounts_machine_is_not_found(ledger: SqlLedger, machine: str) -> None:
    await ledger.create_account("other")

    with pytest.raises(MachineNotFound):
        await ledger.accept("other", machine, "", 1.0, when_busy="queue")
    with pytest.raises(MachineNotFound):
        await ledger.machine("other", machine)
    with pytest.raises(MachineNotFound):
        await ledger.instruction("other", machine, 0)
    with pytest.raises(MachineNotFound):
        await ledger.delete_machine("other", machine)


async def test_unfinished_entries_of_a_machine_are_bounded(ledger: SqlLedger, machine: str) -> None:
    for _ in range(UNFINISHED_LIMIT):
        await accepted(ledger, machine)

    with pytest.raises(TooManyUnfinished):
        await accepted(ledger, machine)
    await accepted(ledger, await new_machine(ledger))


async def test_a_parked_machine_accepts_nothing_and_answers_what_waited(ledger: SqlLedger, hold: Hold) -> None:
    await started(ledger, hold)
    await accepted(ledger, hold.machine)
    await ledger.park(hold, "it died twice")

    with pytest.raises(MachineParked, match="it died twice"):
        await accepted(ledger, hold.machine)
    rows, _ = await ledger.instructions(ACCOUNT, hold.machine)
    assert [(row.seq, row.undone, row.result and row.result.error) for row in rows] == [
        (1, False, "MachineParked: it died twice"),
        (0, True, "MachineParked: it died twice"),
    ]
    machine = await ledger.machine(ACCOUNT, hold.machine)
    assert (machine.state, machine.parked_reason, machine.has_pending_instruction) == ("parked", "it died twice", False)
    assert await ledger.waiting() == []
    assert await ledger.acquire(hold.machine) is None


async def test_a_repeated_key_joins_the_earlier_instruction(ledger: SqlLedger, hold: Hold) -> None:
    first = await ledger.accept(ACCOUNT, hold.machine, "a", 1.0, when_busy="refuse", idempotency=key("k"))
    second = await ledger.accept(ACCOUNT, hold.machine, "a", 1.0, when_busy="refuse", idempotency=key("k"))

    assert isinstance(first, Accepted)
    assert isinstance(second, Accepted)
    assert (first.repeated, second.repeated) == (False, True)
    assert second.entry == first.entry
    with pytest.raises(IdempotencyKeyReused):
        await ledger.accept(
            ACCOUNT, hold.machine, "b", 1.0, when_busy="refuse", idempotency=key("k", body="another body")
        )


async def test_a_refusal_is_not_recorded_under_its_key(ledger: SqlLedger, hold: Hold) -> None:
    running = await started(ledger, hold)
    refused = await ledger.accept(ACCOUNT, hold.machine, "a", 1.0, when_busy="refuse", idempotency=key("k"))
    assert running.seq is not None
    await ledger.finish(hold, running.seq, 1, result())
    taken = await ledger.accept(ACCOUNT, hold.machine, "a", 1.0, when_busy="refuse", idempotency=key("k"))

    assert isinstance(refused, Busy)
    assert isinstance(taken, Accepted)
    assert not taken.repeated


async def test_one_key_covers_a_new_machine_and_its_first_instruction(ledger: SqlLedger) -> None:
    settings = MachineSettings(memory_mb=512, idle_seconds=None)
    name, accepted = await ledger.accept_on_new(ACCOUNT, settings, "a", 1.0, idempotency=key("k"), told=False)
    again, repeated = await ledger.accept_on_new(ACCOUNT, settings, "a", 1.0, idempotency=key("k"))

    assert name == again
    assert (accepted.seq, accepted.repeated, repeated.seq, repeated.repeated) == (0, False, 0, True)
    machines, _ = await ledger.machines(ACCOUNT, tags={}, limit=None, cursor=None)
    assert [machine.name for machine in machines] == [name]
    assert await ledger.waiting() == [name]


async def test_an_answer_is_remembered_under_its_key_and_the_first_stays(ledger: SqlLedger) -> None:
    assert await ledger.recall(ACCOUNT, key("k")) is None
    await ledger.remember(ACCOUNT, key("k"), {"slept": True})
    await ledger.remember(ACCOUNT, key("k"), {"slept": False})

    assert await ledger.recall(ACCOUNT, key("k")) == {"slept": True}
    assert await ledger.recall(ACCOUNT, key("k", path="/other")) is None
    with pytest.raises(IdempotencyKeyReused):
        await ledger.recall(ACCOUNT, key("k", body="another"))


async def test_text_that_utf_8_cannot_hold_is_kept_as_escapes(ledger: SqlLedger, hold: Hold) -> None:
    entry = await started(ledger, hold)
    assert entry.seq is not None
    await ledger.finish(hold, entry.seq, 1, result(error="ValueError: \ud800"))

    row = await ledger.instruction(ACCOUNT, hold.machine, entry.seq)
    assert row.result is not None
    assert row.result.error == "ValueError: \\ud800"


async def test_history_is_paged_newest_first(ledger: SqlLedger, hold: Hold) -> None:
    for _ in range(3):
        await ran(ledger, hold)

    page, cursor = await ledger.instructions(ACCOUNT, hold.machine, limit=2)
    rest, end = await ledger.instructions(ACCOUNT, hold.machine, limit=2, cursor=cursor)
    assert ([row.seq for row in page], [row.seq for row in rest], end) == ([2, 1], [0], None)
