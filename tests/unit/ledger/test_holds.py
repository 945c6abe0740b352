from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from tests.support.ledger import ACCOUNT, accepted, awake, new_machine, ran, result, saved, started, stdout

from torpor_api.ledger import MachineSettings, SqlLedger
from torpor_worker.ledger import Fenced, Hold, Snapshot

SNAPSHOT = Snapshot(0, 0, None, 0, None, 0.0, 0, "key", "sha256", 1, 1, "series")

EVERY_CALL: dict[str, Callable[[SqlLedger, Hold], Awaitable[object]]] = {
    "ready": lambda ledger, hold: ledger.ready(hold),
    "behind": lambda ledger, hold: ledger.behind(hold, -1),
    "start_next": lambda ledger, hold: ledger.start_next(hold),
    "count_attempt": lambda ledger, hold: ledger.count_attempt(hold, 0, 0),
    "append_output": lambda ledger, hold: ledger.append_output(hold, 0, 1, [stdout("x")], background=False),
    "output_offset": lambda ledger, hold: ledger.output_offset(hold, 0, 1),
    "output_given": lambda ledger, hold: ledger.output_given(hold, 0, 1),
    "finish": lambda ledger, hold: ledger.finish(hold, 0, 1, result()),
    "note_replay": lambda ledger, hold: ledger.note_replay(hold, 0),
    "undo": lambda ledger, hold: ledger.undo(hold, 0),
    "allot_save": lambda ledger, hold: ledger.allot_save(hold),
    "commit_snapshot": lambda ledger, hold: ledger.commit_snapshot(hold, None, SNAPSHOT),
    "generations": lambda ledger, hold: ledger.generations(hold),
    "go_back": lambda ledger, hold: ledger.go_back(hold, None),
    "release": lambda ledger, hold: ledger.release(hold, 0),
    "park": lambda ledger, hold: ledger.park(hold, "reason"),
    "notice": lambda ledger, hold: ledger.notice(hold, "code", "message", []),
    "clear_notices": lambda ledger, hold: ledger.clear_notices(hold),
}


@pytest.mark.parametrize("call", EVERY_CALL)
async def test_a_worker_whose_machine_moved_can_do_nothing(ledger: SqlLedger, hold: Hold, call: str) -> None:
    await started(ledger, hold)
    await ledger.acquire(hold.machine)

    with pytest.raises(Fenced):
        await EVERY_CALL[call](ledger, hold)
    assert (await ledger.instruction(ACCOUNT, hold.machine, 0)).status == "started"


async def test_a_worker_whose_machine_was_deleted_is_fenced(ledger: SqlLedger, hold: Hold) -> None:
    await ledger.delete_machine(ACCOUNT, hold.machine)

    with pytest.raises(Fenced):
        await ledger.start_next(hold)
    assert await ledger.acquire(hold.machine) is None


async def test_a_hold_tells_everything_that_a_wake_needs(ledger: SqlLedger) -> None:
    name, _ = await ledger.create_machine(ACCOUNT, MachineSettings(tags={"a": "b"}, memory_mb=512, idle_seconds=None))

    hold = await ledger.acquire(name)
    assert hold == Hold(name, ACCOUNT, 1, 0, None, 512 * 1024 * 1024, None, {"a": "b"})
    snapshot = await saved(ledger, hold, None, 0)
    assert await ledger.release(hold, 0)
    again = await ledger.acquire(name)
    assert again is not None
    assert again.head is not None
    assert (again.head.manifest_key, again.head.generation, again.epoch) == (snapshot.manifest_key, 0, 2)


async def test_a_new_session_takes_over_exactly_the_machines_whose_session_is_set(
    ledger: SqlLedger, hold: Hold
) -> None:
    asleep = await new_machine(ledger)
    await ledger.open_session("the next life")

    assert await ledger.mine() == [hold.machine]
    assert (await ledger.machine(ACCOUNT, hold.machine)).state == "recovering"
    assert (await ledger.machine(ACCOUNT, asleep)).state == "asleep"
    assert (await accepted(ledger, hold.machine)).entry.position is None
    with pytest.raises(Fenced):
        await ledger.start_next(hold)


async def test_the_state_of_a_machine_follows_from_who_holds_it(ledger: SqlLedger, machine: str) -> None:
    async def state() -> str:
        return (await ledger.machine(ACCOUNT, machine)).state

    states = [await state()]
    hold = await ledger.acquire(machine)
    assert hold is not None
    states.append(await state())
    await ledger.ready(hold)
    states.append(await state())
    hold = await ledger.go_back(hold, None)
    states.append(await state())
    await ledger.ready(hold)
    await saved(ledger, hold, None, 0)
    assert await ledger.release(hold, 0)
    states.append(await state())
    assert states == ["asleep", "waking", "awake", "recovering", "asleep"]


async def test_an_instruction_that_arrives_while_it_falls_asleep_keeps_it_awake(ledger: SqlLedger, hold: Hold) -> None:
    await saved(ledger, hold, None, 0)
    await accepted(ledger, hold.machine)

    assert not await ledger.release(hold, 0)
    assert (await ledger.machine(ACCOUNT, hold.machine)).state == "awake"


async def test_a_machine_whose_head_lacks_an_instruction_is_not_released(ledger: SqlLedger, hold: Hold) -> None:
    await saved(ledger, hold, None, 0)
    await ran(ledger, hold)

    assert not await ledger.release(hold, 0)
    await saved(ledger, hold, 0, 1)
    assert not await ledger.release(hold, 0)
    assert await ledger.release(hold, 1)


async def test_draining_releases_a_machine_in_the_middle_of_an_instruction(ledger: SqlLedger, hold: Hold) -> None:
    running = await started(ledger, hold)
    await accepted(ledger, hold.machine)
    await saved(ledger, hold, None, 1, running_seq=running.seq)

    assert not await ledger.release(hold, 0)
    assert await ledger.release(hold, 0, draining=True)
    assert (await ledger.machine(ACCOUNT, hold.machine)).state == "asleep"
    assert await ledger.waiting() == [hold.machine]
    again = await awake(ledger, hold.machine)
    assert await ledger.start_next(again) == running


async def test_draining_does_not_release_what_the_snapshot_does_not_hold(ledger: SqlLedger, hold: Hold) -> None:
    await saved(ledger, hold, None, 0)
    running = await started(ledger, hold)
    assert not await ledger.release(hold, 0, draining=True)

    await saved(ledger, hold, 0, 1, running_seq=running.seq)
    assert running.seq is not None
    await ledger.finish(hold, running.seq, 1, result())
    assert not await ledger.release(hold, 1, draining=True)


async def test_waiting_machines_come_in_the_order_of_their_oldest_entry(ledger: SqlLedger) -> None:
    first, second = await new_machine(ledger), await new_machine(ledger)
    await accepted(ledger, second)
    await accepted(ledger, first)
    await accepted(ledger, second)

    assert await ledger.waiting() == [second, first]
