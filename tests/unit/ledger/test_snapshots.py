from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.ledger import ACCOUNT, awake, let_years_pass, new_machine, ran, saved, started

from torpor_api.ledger import SqlLedger
from torpor_api.ledger.retention import NEW_ONES, OLD_ONES
from torpor_snapshotter.key import pack_key
from torpor_worker.ledger import Fenced, HeadMoved, Hold, Snapshot


async def kept(ledger: SqlLedger, hold: Hold) -> list[int]:
    return [snapshot.generation for snapshot in await ledger.generations(hold)]


async def test_a_key_is_known_before_its_object_is_put(ledger: SqlLedger, hold: Hold) -> None:
    first = await ledger.allot_save(hold)
    second = await ledger.allot_save(hold)

    assert (first[0], second[0]) == (0, 1)
    assert await ledger.known_keys() == {first[1], pack_key(first[1]), second[1], pack_key(second[1])}
    assert len({first[1], second[1]}) == 2


async def test_a_snapshot_is_read_as_it_was_committed(ledger: SqlLedger, hold: Hold) -> None:
    await started(ledger, hold)
    written = await saved(ledger, hold, None, 1, running_seq=0, output_offset=7)

    [read] = await ledger.generations(hold)
    assert replace(read, created_at=None) == written
    assert read.created_at is not None
    machine = await ledger.machine(ACCOUNT, hold.machine)
    assert (machine.generation, machine.stored_bytes) == (0, 10)


async def test_a_commit_on_a_head_that_moved_is_refused(ledger: SqlLedger, hold: Hold) -> None:
    slow = await ledger.allot_save(hold)
    quick = await saved(ledger, hold, None, 0)

    with pytest.raises(HeadMoved):
        await ledger.commit_snapshot(hold, None, replace(quick, generation=slow[0], manifest_key=slow[1]))
    assert await kept(ledger, hold) == [1]
    assert await ledger.condemned() == [slow[1], pack_key(slow[1])]


async def test_a_commit_that_is_repeated_changes_nothing(ledger: SqlLedger, hold: Hold) -> None:
    first = await saved(ledger, hold, None, 0)
    await ledger.commit_snapshot(hold, None, first)
    await saved(ledger, hold, 0, 0)
    await ledger.commit_snapshot(hold, None, first)

    assert await kept(ledger, hold) == [1, 0]


@pytest.mark.parametrize("change", [{"generation": 7}, {"manifest_key": "another"}, {"position": 1}])
async def test_a_snapshot_of_what_was_never_allotted_is_refused(
    ledger: SqlLedger, hold: Hold, change: dict[str, object]
) -> None:
    generation, manifest_key = await ledger.allot_save(hold)
    snapshot = Snapshot(generation, 0, None, 0, None, 0.0, 0, manifest_key, "sha256", 1, 1, "series")

    with pytest.raises(ValueError, match="allotted"):
        await ledger.commit_snapshot(hold, None, replace(snapshot, **change))  # type: ignore[arg-type]  # any field


async def test_the_commit_that_makes_two_newer_quiescent_generations_condemns_old_ones(
    ledger: SqlLedger, hold: Hold, tmp_path: Path
) -> None:
    first = await saved(ledger, hold, None, 0)
    await saved(ledger, hold, 0, 0)
    await started(ledger, hold)
    let_years_pass(tmp_path)
    middle = await saved(ledger, hold, 1, 1, running_seq=0)
    assert await ledger.condemned() == []
    await saved(ledger, hold, 2, 1)

    assert await kept(ledger, hold) == [3, 1]
    gone = [first.manifest_key, *first.packs, middle.manifest_key, *middle.packs]
    assert await ledger.condemned() == gone
    assert first.manifest_key not in await ledger.known_keys()


async def test_a_machine_with_thousands_of_generations_is_thinned_out_too(
    ledger: SqlLedger, hold: Hold, tmp_path: Path
) -> None:
    for head in (None, *range(OLD_ONES + NEW_ONES)):
        await saved(ledger, hold, head, 0)
    let_years_pass(tmp_path)
    await saved(ledger, hold, OLD_ONES + NEW_ONES, 0)
    await ledger.thin_out()

    assert await kept(ledger, hold) == [OLD_ONES + NEW_ONES + 1, OLD_ONES + NEW_ONES]


async def test_all_generations_of_the_last_hour_are_kept(ledger: SqlLedger, hold: Hold) -> None:
    for head in (None, *range(5)):
        await saved(ledger, hold, head, 0)

    assert await kept(ledger, hold) == [5, 4, 3, 2, 1, 0]
    assert await ledger.condemned() == []


async def test_a_machine_that_saves_nothing_any_more_is_thinned_out_too(
    ledger: SqlLedger, hold: Hold, tmp_path: Path
) -> None:
    others = [await awake(ledger, await new_machine(ledger)) for _ in range(2)]
    for each in (hold, *others):
        for head in (None, *range(39)):
            await saved(ledger, each, head, 0)
    await ledger.park(others[0], "it cannot live")
    let_years_pass(tmp_path)

    after = await ledger.thin_out(0, limit=1)
    assert await kept(ledger, hold) == [39, 38]
    assert len(await kept(ledger, others[1])) == 40
    assert await ledger.thin_out(after, limit=5) == 0
    assert await kept(ledger, others[1]) == [39, 38]
    assert len(await ledger.snapshots(ACCOUNT, others[0].machine)) == 40


async def test_what_a_machine_was_brought_back_to_is_kept_while_nothing_newer_replaces_it(
    ledger: SqlLedger, hold: Hold, tmp_path: Path
) -> None:
    for head in (None, 0, 1, 2):
        await saved(ledger, hold, head, 0)
    back = await ledger.go_back(hold, 1)
    let_years_pass(tmp_path)
    await ledger.thin_out()

    assert await kept(ledger, back) == [1, 0]
    assert [row.snapshot.generation for row in await ledger.snapshots(ACCOUNT, hold.machine)] == [3, 2, 1, 0]
    await saved(ledger, back, 1, 0)
    assert await kept(ledger, back) == [4, 1]
    assert [row.snapshot.generation for row in await ledger.snapshots(ACCOUNT, hold.machine)] == [4, 3, 2, 1]


async def test_going_back_starts_a_line_and_fences_the_save_in_flight(ledger: SqlLedger, hold: Hold) -> None:
    for head in (None, 0):
        await saved(ledger, hold, head, 0)
    in_flight = await ledger.allot_save(hold)
    back = await ledger.go_back(hold, 0)

    assert (back.line, back.head and back.head.generation, back.epoch) == (1, 0, hold.epoch + 1)
    assert in_flight[1] in await ledger.condemned()
    with pytest.raises(Fenced):
        await ledger.allot_save(hold)
    newer = await saved(ledger, back, 0, 0)
    assert (newer.generation, await kept(ledger, back)) == (3, [3, 0])


async def test_going_back_to_the_empty_interpreter_leaves_no_generation_and_the_whole_log(
    ledger: SqlLedger, hold: Hold
) -> None:
    await ran(ledger, hold)
    await saved(ledger, hold, None, 1)
    back = await ledger.go_back(hold, None)

    assert back.head is None
    assert await kept(ledger, back) == []
    assert [entry.position for entry in await ledger.behind(back, -1)] == [0, 1]


async def test_going_back_to_a_generation_that_is_not_there_is_refused(ledger: SqlLedger, hold: Hold) -> None:
    with pytest.raises(ValueError, match="no generation 5"):
        await ledger.go_back(hold, 5)


async def test_saves_of_a_dead_session_are_condemned_by_the_next(ledger: SqlLedger, hold: Hold) -> None:
    committed = await saved(ledger, hold, None, 0)
    _, lost = await ledger.allot_save(hold)
    await ledger.open_session("the next life")

    assert await ledger.condemned() == [lost, pack_key(lost)]
    assert await ledger.known_keys() == {committed.manifest_key, *committed.packs}


async def test_objects_of_a_deleted_machine_are_condemned_with_it(ledger: SqlLedger, hold: Hold) -> None:
    manifest_keys = {(await saved(ledger, hold, None, 0)).manifest_key, (await ledger.allot_save(hold))[1]}
    keys = manifest_keys | {pack_key(key) for key in manifest_keys}
    await ledger.delete_machine(ACCOUNT, hold.machine)

    assert await ledger.condemned_machines() == [hold.machine]
    await ledger.forget_condemned_machine(hold.machine)
    assert await ledger.condemned_machines() == []
    assert set(await ledger.condemned()) == keys
    assert await ledger.known_keys() == set()
    await ledger.forget_condemned(sorted(keys))
    assert await ledger.condemned() == []


async def test_a_pack_is_condemned_with_the_last_snapshot_that_refers_to_it(
    ledger: SqlLedger, hold: Hold, tmp_path: Path
) -> None:
    first = await saved(ledger, hold, None, 0)
    second = await saved(ledger, hold, 0, 0, shared=first.packs)
    let_years_pass(tmp_path)
    third = await saved(ledger, hold, 1, 0, shared=first.packs)
    assert await ledger.condemned() == [first.manifest_key]
    assert (await ledger.machine(ACCOUNT, hold.machine)).stored_bytes == 30

    let_years_pass(tmp_path)
    await saved(ledger, hold, 2, 0, shared=third.packs[1:])
    assert await ledger.condemned() == [first.manifest_key, second.manifest_key, *second.packs[1:]]
    let_years_pass(tmp_path)
    await saved(ledger, hold, 3, 0)
    assert first.packs[0] in await ledger.condemned()
    assert first.packs[0] not in await ledger.known_keys()


async def test_a_pack_that_another_machine_refers_to_outlives_its_own(ledger: SqlLedger, hold: Hold) -> None:
    template = await saved(ledger, hold, None, 0)
    other = await awake(ledger, await new_machine(ledger))
    mine = await saved(ledger, other, None, 0, shared=template.packs)
    await ledger.delete_machine(ACCOUNT, hold.machine)

    assert await ledger.condemned() == [template.manifest_key]
    await ledger.delete_machine(ACCOUNT, other.machine)
    assert set(await ledger.condemned()) == {template.manifest_key, mine.manifest_key, *mine.packs}


async def test_a_snapshot_on_a_pack_that_is_gone_is_refused(ledger: SqlLedger, hold: Hold) -> None:
    head = await saved(ledger, hold, None, 0)

    with pytest.raises(HeadMoved, match="gone"):
        await saved(ledger, hold, 0, 0, shared=("machines/none.pack",))
    assert await kept(ledger, hold) == [head.generation]
