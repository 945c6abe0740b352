"""Forks share what is stored, and owe nothing to the machine they came from."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tests.support.ledger import ACCOUNT, awake, key, let_years_pass, ran, saved

from torpor_api.errors import MachineBusy, MachineParked
from torpor_api.ledger import Point, SqlLedger
from torpor_api.ledger.database import FILE_NAME
from torpor_api.ledger.rollbacks import Unsettled
from torpor_snapshotter.key import pack_key
from torpor_worker.ledger import EntryKind, HeadMoved, Hold, Snapshot
from torpor_worker.snapshots import Stored


async def slept(ledger: SqlLedger, hold: Hold) -> Snapshot:
    """The snapshot under which a machine fell asleep that ran one more instruction."""
    await ran(ledger, hold)
    position = (await ledger.behind(hold, -1))[-1].position
    assert position is not None
    head = None if hold.head is None else hold.head.generation
    snapshot = await saved(ledger, hold, head, position)
    assert await ledger.release(hold, snapshot.generation)
    return snapshot


def stored(name: str, source: Snapshot) -> Stored:
    return Stored(f"machines/{name}/00000000-copy", "sha256 of the copy", 1, source.image_bytes, source.packs)


async def forked(ledger: SqlLedger, machine: str, name: str, at: Point | None = None) -> str:
    place = await ledger.place_to_fork(ACCOUNT, machine, at)
    copies = {name: None if place.snapshot is None else stored(name, place.snapshot)}
    await ledger.expect_copies({name: copy.manifest_key for name, copy in copies.items() if copy is not None})
    await ledger.fork(ACCOUNT, machine, place, copies, tags=None, answer={"machines": [name]}, idempotency=key(name))
    return name


async def test_a_fork_begins_behind_what_its_image_has_seen_with_a_seed_of_its_own(
    ledger: SqlLedger, hold: Hold
) -> None:
    head = await slept(ledger, hold)
    names = [await forked(ledger, hold.machine, "a" * 16), await forked(ledger, hold.machine, "b" * 16)]
    seeds = set()
    for name in names:
        fork = await awake(ledger, name)
        assert fork.head is not None
        assert (fork.head.generation, fork.head.position, fork.head.base) == (0, head.position, True)
        [reseed] = await ledger.behind(fork, head.position)
        assert (reseed.kind, reseed.position) == (EntryKind.RESEED, head.position + 1)
        seeds.add(reseed.seed)
        assert await ran(ledger, fork) == 0
    assert len(seeds) == 2
    assert await ledger.recall(ACCOUNT, key(names[0])) == {"machines": [names[0]]}


async def test_packs_go_with_the_last_machine_that_needs_them(ledger: SqlLedger, hold: Hold) -> None:
    head = await slept(ledger, hold)
    first = await forked(ledger, hold.machine, "a" * 16)
    second = await forked(ledger, first, "b" * 16)
    pack = pack_key(head.manifest_key)
    await ledger.delete_machine(ACCOUNT, hold.machine)
    assert await ledger.condemned() == [head.manifest_key]
    await ledger.delete_machine(ACCOUNT, first)
    assert pack not in await ledger.condemned()
    assert (await awake(ledger, second)).head is not None
    await ledger.delete_machine(ACCOUNT, second)
    assert pack in await ledger.condemned()


async def test_a_forks_beginning_outlives_newer_generations(ledger: SqlLedger, hold: Hold, tmp_path: Path) -> None:
    await slept(ledger, hold)
    name = await forked(ledger, hold.machine, "a" * 16)
    for _ in range(4):
        let_years_pass(tmp_path)
        await slept(ledger, await awake(ledger, name))
    kept = await ledger.generations(await awake(ledger, name))

    assert [snapshot.generation for snapshot in kept] == [4, 3, 0]


async def test_a_fork_that_is_rolled_back_to_its_beginning_keeps_its_own_seed(ledger: SqlLedger, hold: Hold) -> None:
    head = await slept(ledger, hold)
    name = await forked(ledger, hold.machine, "a" * 16)
    before = await awake(ledger, name)
    [reseed] = await ledger.behind(before, head.position)
    await slept(ledger, before)
    await ledger.roll_back(ACCOUNT, name, Point(generation=0), answer=lambda _: {})

    assert await ledger.behind(await awake(ledger, name), head.position) == [reseed]


async def test_a_fork_at_a_seq_has_a_copy_of_the_log_that_leads_there(ledger: SqlLedger, hold: Hold) -> None:
    await ran(ledger, hold, "first")
    await ran(ledger, hold, "second")
    await slept(ledger, hold)
    name = await forked(ledger, hold.machine, "a" * 16, Point(seq=1))
    await ledger.delete_machine(ACCOUNT, hold.machine)
    fork = await awake(ledger, name)

    assert fork.head is None
    entries = await ledger.behind(fork, -1)
    assert [(entry.kind, entry.seq, entry.position) for entry in entries] == [
        (EntryKind.RESEED, None, 0),
        (EntryKind.EXECUTE, 0, 1),
        (EntryKind.EXECUTE, 1, 2),
        (EntryKind.RESEED, None, 3),
    ]
    assert [entry.result.value for entry in entries if entry.result] == ["first", "second"]
    assert (await ledger.output(name, 1)).finished
    assert await ran(ledger, fork) == 2


async def test_what_is_not_settled_is_not_forked(ledger: SqlLedger, hold: Hold) -> None:
    await ran(ledger, hold)
    with pytest.raises(Unsettled):
        await ledger.place_to_fork(ACCOUNT, hold.machine, None)
    await ledger.accept(ACCOUNT, hold.machine, "pass", 15.0, when_busy="queue")
    with pytest.raises(MachineBusy):  # no state in which nothing ran is saved
        await ledger.place_to_fork(ACCOUNT, hold.machine, None)
    await ledger.park(hold, "it cannot live")
    with pytest.raises(MachineParked):
        await ledger.place_to_fork(ACCOUNT, hold.machine, None)


async def test_a_state_that_was_given_up_meanwhile_is_not_forked(ledger: SqlLedger, hold: Hold, tmp_path: Path) -> None:
    first = await slept(ledger, hold)
    place = await ledger.place_to_fork(ACCOUNT, hold.machine, None)
    copies: dict[str, Stored | None] = {"a" * 16: Stored("copy", "sha256", 1, 1, ("gone.pack",))}
    await ledger.expect_copies({"a" * 16: "copy"})
    with pytest.raises(HeadMoved):
        await ledger.fork(ACCOUNT, hold.machine, place, copies, tags=None, answer={})
    for _ in range(2):
        let_years_pass(tmp_path)
        await slept(ledger, await awake(ledger, hold.machine))
    with pytest.raises(Unsettled):
        await ledger.fork(ACCOUNT, hold.machine, place, {"a" * 16: stored("a" * 16, first)}, tags=None, answer={})
    assert [machine.name for machine in (await ledger.machines(ACCOUNT))[0]] == [hold.machine]


async def test_a_copy_is_known_before_there_is_a_fork_and_condemned_if_there_will_be_none(
    ledger: SqlLedger, hold: Hold
) -> None:
    head = await slept(ledger, hold)
    names = ["a" * 16, "b" * 16]
    keys = {name: stored(name, head).manifest_key for name in names}
    await ledger.expect_copies(keys)
    assert set(keys.values()) <= await ledger.known_keys()
    place = await ledger.place_to_fork(ACCOUNT, hold.machine, None)
    await ledger.fork(ACCOUNT, hold.machine, place, {names[0]: stored(names[0], head)}, tags=None, answer={})
    assert await ledger.give_up_copies(names) == {names[1]: keys[names[1]]}
    assert keys[names[0]] in await ledger.known_keys()
    assert await ledger.condemned() == [keys[names[1]]]
    assert await ledger.condemned_machines() == [names[1]]


async def test_a_start_gives_up_the_copies_that_a_dead_server_was_making(ledger: SqlLedger, hold: Hold) -> None:
    head = await slept(ledger, hold)
    copy = stored("a" * 16, head)
    await ledger.expect_copies({"a" * 16: copy.manifest_key})
    await ledger.open_session("the next")
    assert await ledger.condemned() == [copy.manifest_key]
    place = await ledger.place_to_fork(ACCOUNT, hold.machine, None)
    with pytest.raises(HeadMoved):
        await ledger.fork(ACCOUNT, hold.machine, place, {"a" * 16: copy}, tags=None, answer={})


async def test_a_fork_is_refused_if_what_it_replays_was_given_up_since_its_place_was_found(
    ledger: SqlLedger, hold: Hold, tmp_path: Path
) -> None:
    change = await ledger.log_change(hold, "a change", "what it writes", 14, behind=0)
    assert change is not None
    seq = await ran(ledger, hold)
    place = await ledger.place_to_fork(ACCOUNT, hold.machine, Point(seq=seq))
    head = None
    for _ in range(2):
        head = (await saved(ledger, hold, head, 2)).generation
    with closing(sqlite3.connect(tmp_path / FILE_NAME, timeout=60)) as database, database:
        database.execute("UPDATE entries SET finished_at = 1")
    await ledger.release_bodies()
    with pytest.raises(Unsettled):
        await ledger.fork(ACCOUNT, hold.machine, place, {"a" * 16: None}, tags=None, answer={}, idempotency=None)
