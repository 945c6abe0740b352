from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.ledger import ACCOUNT, awake, let_years_pass, new_machine, open_ledger, saved

from torpor_api.collector import Collector
from torpor_api.ledger import SqlLedger
from torpor_snapshotter.key import pack_key
from torpor_worker.snapshots import Parent, SnapshotterError, Stored


class KeysOnly:
    """A snapshotter that knows keys and no images; `failing` makes it refuse."""

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self.failing = False
        self.events: list[str] = []
        self.emptied = asyncio.Event()

    async def store(self, image: Path, key: str, fields: dict[str, Any], parent: Parent | None = None) -> Stored:
        raise NotImplementedError

    async def fetch(self, key: str, sha256: str, into: Path) -> None:
        raise NotImplementedError

    async def destroy_key(self, machine: str) -> None:
        self.events.append(f"key of {machine}")

    async def delete(self, key: str) -> None:
        if self.failing:
            raise SnapshotterError("the disk is full")
        self.events.append(key)
        self.keys.discard(key)
        if not self.keys:
            self.emptied.set()

    async def list(self) -> list[str]:
        return sorted(self.keys)

    async def close(self) -> None:
        return


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[SqlLedger]:
    ledger = await open_ledger(tmp_path)
    yield ledger
    await ledger.close()


async def test_condemned_objects_are_deleted_once_nothing_uses_them(ledger: SqlLedger, tmp_path: Path) -> None:
    snapshotter, in_use = KeysOnly(), set[str]()
    collector = Collector(ledger, snapshotter, lambda: in_use, lambda _: False)
    hold = await awake(ledger, await new_machine(ledger))
    snapshots = [await saved(ledger, hold, head, 0) for head in (None, 0, 1)]
    keys = [[snapshot.manifest_key, *snapshot.packs] for snapshot in snapshots]
    snapshotter.keys = {key for some in keys for key in some}
    in_use |= set(keys[0])
    let_years_pass(tmp_path)
    await collector.thin_out()

    assert await collector.collect() == 0
    in_use.clear()
    assert await collector.collect() == 2
    assert snapshotter.keys == {*keys[1], *keys[2]}
    assert await ledger.condemned() == []


async def test_at_the_start_objects_that_no_row_names_are_deleted(ledger: SqlLedger) -> None:
    snapshotter = KeysOnly()
    collector = Collector(ledger, snapshotter, set, lambda _: False)
    hold = await awake(ledger, await new_machine(ledger))
    committed = await saved(ledger, hold, None, 0)
    _, under_way = await ledger.allot_save(hold)
    needed = {committed.manifest_key, *committed.packs, under_way, pack_key(under_way)}
    snapshotter.keys = {*needed, "orphan"}

    assert await collector.collect_unknown() == 1
    assert snapshotter.keys == needed


async def test_the_key_of_a_deleted_machine_is_destroyed_before_its_objects(ledger: SqlLedger) -> None:
    snapshotter = KeysOnly()
    collector = Collector(ledger, snapshotter, set, lambda _: False)
    hold = await awake(ledger, await new_machine(ledger))
    snapshot = await saved(ledger, hold, None, 0)
    await ledger.delete_machine(ACCOUNT, hold.machine)

    assert await collector.collect() == 2
    assert snapshotter.events == [f"key of {hold.machine}", snapshot.manifest_key, *snapshot.packs]
    assert await ledger.condemned_machines() == []


async def test_a_store_that_fails_loses_no_condemned_key_and_is_tried_again(ledger: SqlLedger) -> None:
    snapshotter = KeysOnly()
    collector = Collector(ledger, snapshotter, set, lambda _: False)
    hold = await awake(ledger, await new_machine(ledger))
    snapshot = await saved(ledger, hold, None, 0)
    keys = [snapshot.manifest_key, *snapshot.packs]
    await ledger.delete_machine(ACCOUNT, hold.machine)
    snapshotter.keys = set(keys)
    snapshotter.failing = True

    with pytest.raises(SnapshotterError):
        await collector.collect()
    assert await ledger.condemned() == keys
    snapshotter.failing = False
    running = asyncio.create_task(collector.run())
    await asyncio.wait_for(snapshotter.emptied.wait(), 60)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_round_that_fails_unforeseen_is_followed_by_the_next(ledger: SqlLedger) -> None:
    snapshotter = KeysOnly()
    failures = [OSError("no room for the journal")]

    def in_use() -> set[str]:
        if failures:
            raise failures.pop()
        return set()

    collector = Collector(ledger, snapshotter, in_use, lambda _: False)
    hold = await awake(ledger, await new_machine(ledger))
    snapshotter.keys = {(await saved(ledger, hold, None, 0)).manifest_key}
    await ledger.delete_machine(ACCOUNT, hold.machine)
    running = asyncio.create_task(collector.run(interval_seconds=0.01))
    async with asyncio.timeout(60):
        await snapshotter.emptied.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_key_that_a_save_could_make_anew_is_destroyed_once_more_after_that_save(ledger: SqlLedger) -> None:
    snapshotter, held = KeysOnly(), {"it"}
    machine = await new_machine(ledger)
    collector = Collector(ledger, snapshotter, set, lambda name: name == machine and bool(held))
    await ledger.delete_machine(ACCOUNT, machine)
    await collector.collect()
    held.clear()
    await collector.collect()
    await collector.collect()
    assert snapshotter.events == [f"key of {machine}"] * 2
