"""What a rebuild makes of the manifests in a store."""

from __future__ import annotations

from typing import Any

from torpor_api.rebuild.plan import SEQS_SKIPPED, Plan, PlannedLine, PlannedMachine, plan
from torpor_api.rebuild.survey import FoundSnapshot, StoredPack, Survey, Unusable
from torpor_api.store_check import State
from torpor_snapshotter.key import pack_key
from torpor_snapshotter.runtimes.description import Description, FileParts, Part

HOUR = 3600 * 1_000_000
NOW = 1000 * 24 * HOUR


def found(generation: int, position: int, **fields: Any) -> FoundSnapshot:
    key = f"machines/m/{generation:08}-ab"
    known = {
        "machine": "m",
        "account": "me",
        "generation": generation,
        "parent": generation - 1 if generation else None,
        "line": 0,
        "epoch": 1,
        "position": position,
        "running": None,
        "series": "s",
    }
    return FoundSnapshot(key, "sha256", 10, 100, {**known, **fields}, (StoredPack(pack_key(key), 9),))


def planned(*snapshots: FoundSnapshot, newest: int = 9, **more: Any) -> Plan:
    said: dict[str, Any] = {"owner": "o", "templates": (), "runtimes": (), "unusable": (), "left_over": (), **more}
    return plan(Survey(snapshots=snapshots, generations={"m": newest}, **said), NOW)


def machine(*snapshots: FoundSnapshot) -> PlannedMachine:
    [only] = planned(*snapshots).machines
    return only


def test_manifests_that_say_little_are_enough() -> None:
    """A manifest of the first version of the format has no lines, no next seq and no times."""
    one = machine(found(0, 3), found(1, 5), found(2, 4, line=1, parent=0, epoch=2))

    assert (one.head.generation, one.epoch, one.line) == (2, 3, 2)
    assert one.lines == (PlannedLine(1, 0, 0, 3), PlannedLine(2, 1, 2, 4))
    assert (one.next_generation, one.next_position, one.next_seq) == (10, 6, 6 + SEQS_SKIPPED)
    assert one.created_at == NOW


def test_the_head_is_of_the_highest_epoch_since_a_save_may_have_come_too_late() -> None:
    assert machine(found(3, 5), found(2, 4, line=1, epoch=2)).head.generation == 2


def test_lines_that_only_a_later_manifest_names_are_known() -> None:
    said = [[2, 1, 1, 5, None], [1, 0, 0, 3, 1]]
    one = machine(found(0, 3), found(4, 6, line=2, parent=1, lines=said))

    assert one.lines == (PlannedLine(1, 0, 0, 3, 1), PlannedLine(2, 1, 1, 5), PlannedLine(3, 2, 4, 6))


def test_pins_are_those_of_the_head_and_what_nothing_else_can_have_kept() -> None:
    times = [(0, 900), (1, 100), (2, 99), (3, 98.9), (4, 98.8), (5, 0.9), (6, 0.8), (7, 0.5)]
    snapshots = [found(number, number, saved_at=int(NOW - hours * HOUR)) for number, hours in times]
    head = found(8, 8, saved_at=NOW, pinned=[1, 7])

    # Of 2, 3 and 4, which are of one hour, retention keeps the last; who pinned the others did so after the last save.
    assert machine(*snapshots, head).pinned == {1, 2, 3, 7}


def test_garbage_is_left_to_the_server_unless_something_cannot_be_read() -> None:
    left = {"left_over": ("machines/m/00000004-ab.pack", "runtimes/x")}
    assert planned(found(0, 1), **left).kept == ("runtimes/x",)
    locked = Unusable("machines/n/00000000-ab", State.LOCKED, "no key")
    assert planned(found(0, 1), unusable=(locked,), **left).kept == left["left_over"]


def test_only_a_runtime_that_a_manifest_vouches_for_is_believed_and_no_other_is_lost() -> None:
    def runtime(binary: str, series: str = "s") -> Description:
        files = [FileParts(sha256, (Part(sha256, 1),)) for sha256 in (binary, "rootfs")]
        return Description(series, "v1", series, files[0], files[1])

    first, rebuilt, planted, unneeded = runtime("first"), runtime("rebuilt"), runtime("planted"), runtime("x", "t")
    snapshots = [found(0, 1, runtime=first.facts, saved_at=1), found(1, 2, runtime=rebuilt.facts, saved_at=2)]
    made = planned(*snapshots, runtimes=(first, planted, rebuilt, unneeded))

    assert made.runtimes == (rebuilt,)
    assert made.kept == tuple(sorted({*first.keys, *planted.keys, *unneeded.keys} - {*rebuilt.keys}))
