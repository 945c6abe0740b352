"""What a recovery does not execute again: by its machine's wish all that is not saved, or what takes too long. Pure.

Condition of docs/protocol: UNSENT_WAITS.
"""

from __future__ import annotations

from torpor_worker import results
from torpor_worker.ledger import Entry, EntryKind, Forgone, Hold, Recovery, Snapshot


def forgone(hold: Hold, inside: list[Entry], behind: list[Entry], *, sent: int | None) -> Forgone | None:
    """What a recovery of the hold's head leaves behind; None if that is nothing.

    `inside` run in the head, `behind` are the started entries after it, in order. `sent` is the highest position that
    the dead process was sent: an entry behind that never began. None if that is not known. What runs in the head in
    the background goes on from there, as every background work does.
    """
    kept = _always_kept(hold, behind)
    if hold.recovery is Recovery.ROLLBACK:
        cut_short = [entry for entry in inside if entry.is_awaited and entry.ended_by is None]
        why = "its recovery is set to rollback"
        return _forgone(hold, kept, [entry for entry in behind if _position(entry) > kept], sent, why, cut_short)
    run_ms = sum(entry.result.runtime_ms for entry in inside if entry.is_awaited and entry.result is not None)
    for number, entry in enumerate(behind):
        position = _position(entry)
        if position <= kept or entry.undone or entry.ended_by is not None or not entry.is_awaited:
            continue
        run_ms += 0 if entry.result is None else entry.result.runtime_ms
        if run_ms > 1000 * hold.replay_seconds:
            before = _position(behind[number - 1]) if number else _head_position(hold.head)
            return _forgone(hold, max(before, kept), behind[number:], sent, too_long(hold))
    return None


def unfit(hold: Hold, behind: list[Entry]) -> Entry | None:
    """The first entry that would have to be executed again, and is not kept any more."""
    return next((entry for entry in behind if entry.expired and not entry.undone and entry.ended_by is None), None)


def stopped(hold: Hold, position: int, behind: list[Entry], *, sent: int | None) -> Forgone | None:
    """What is left behind by a replay that was stopped after it had applied what lies up to `position`."""
    return _forgone(hold, position, [one for one in behind if _position(one) > position], sent, too_long(hold))


def too_long(hold: Hold) -> str:
    """Why a replay is stopped."""
    return f"executing more again takes longer than {hold.replay_seconds:g} s"


def named(seqs: list[int]) -> str:
    """Some instructions, in a sentence."""
    shown = ", ".join(map(str, seqs[:20])) + (", …" if len(seqs) > 20 else "")
    return f"instruction {shown}" if len(seqs) == 1 else f"instructions {shown}"


def source(head: Snapshot | None) -> str:
    """Where a machine was brought back from, in a sentence."""
    return "its beginning" if head is None else f"its save of generation {head.generation}"


def _forgone(
    hold: Hold, kept: int, lost: list[Entry], sent: int | None, why: str, cut_short: list[Entry] | None = None
) -> Forgone | None:
    unsent = [] if sent is None else [one for one in lost if one.target is not None and _position(one) > sent]
    lost = [one for one in lost if one.kind.has_seq and not (one.undone and one.result is not None)]
    # What never began waits until the machine is back.
    lost = [one for one in lost if one.result is not None or sent is None or _position(one) <= sent]
    seqs = [one.seq for one in (*(cut_short or []), *lost) if one.seq is not None]
    if not seqs:
        return None
    return Forgone(
        position=kept,
        seqs=seqs,
        message=f"The machine was brought back from {source(hold.head)} without the effects of {named(seqs)}, since "
        f"{why}; answers that were given stand. A rollback to a later instruction executes them again.",
        unfinished=tuple(one.seq for one in lost if one.result is None and one.seq is not None),
        cut_short=tuple(one.seq for one in cut_short or [] if one.seq is not None),
        waiting=tuple(one.id for one in unsent if one.target not in seqs),
        answer=results.forgone(why),
    )


def _always_kept(hold: Hold, behind: list[Entry]) -> int:
    """The last position that belongs to the state whatever happens: new randomness, and what was asked to run again."""
    seeds = (_position(entry) for entry in behind if entry.kind is EntryKind.RESEED)
    return max(_head_position(hold.head), hold.asked_position, *seeds)


def _head_position(head: Snapshot | None) -> int:
    return -1 if head is None else head.position


def _position(entry: Entry) -> int:
    if entry.position is None:
        raise ValueError(f"entry {entry.id} was not started")
    return entry.position
