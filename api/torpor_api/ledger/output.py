"""Output as it is written: one sequence of records per attempt, addressed by byte offset, in rows and segments."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, insert, select, update

from torpor_api.ledger.database import Statement
from torpor_api.ledger.schema import output_attempts, output_pieces
from torpor_api.ledger.segments import Segments, pack
from torpor_worker.ledger import OutputRecord

INLINE_LIMIT_BYTES = 64 * 1024
STREAMED_INLINE_LIMIT_BYTES = 4 * 1024
PIECE_LIMIT_BYTES = 256 * 1024

_END = Statement(
    select(output_pieces.c.start + output_pieces.c.size_bytes)
    .where(output_pieces.c.entry_id == bindparam("entry"), output_pieces.c.attempt == bindparam("of_attempt"))
    .order_by(output_pieces.c.start.desc())
    .limit(1)
)
_ATTEMPT = Statement(
    select(
        output_attempts.c.inherited_bytes,
        output_attempts.c.dropped_bytes + output_attempts.c.dropped_background_bytes,
    ).where(output_attempts.c.entry_id == bindparam("entry"), output_attempts.c.attempt == bindparam("of_attempt"))
)
_PIECE_COLUMNS = ("machine_id", "entry_id", "attempt", "start", "size_bytes", "background")
_INSERT_INLINE = Statement(insert(output_pieces), *_PIECE_COLUMNS, "inline")
_INSERT_PLACE = Statement(insert(output_pieces), *_PIECE_COLUMNS, "segment", "segment_start", "segment_bytes")


@dataclass(frozen=True, slots=True)
class Sequence:
    """The sequence that an attempt's output goes to."""

    machine: str
    machine_id: int
    entry_id: int
    attempt: int
    background: bool


class OutputLog:
    """Writes output into rows and segments."""

    def __init__(self, segments: Segments, limit_bytes: int) -> None:
        self._segments = segments
        self._limit_bytes = limit_bytes

    def append(
        self,
        connection: Connection,
        sequence: Sequence,
        records: list[OutputRecord],
        *,
        inline_limit_bytes: int,
        skipped_bytes: int = 0,
    ) -> None:
        """Store records behind what is there, up to the limit of the sequence; count the rest, and what was skipped."""
        end, dropped_before = _end(connection, sequence.entry_id, sequence.attempt)
        room = 0 if dropped_before else self._limit_bytes - end
        kept, dropped_bytes = _fit(records, room)
        inline = sum(len(record.data) for record in kept) <= inline_limit_bytes
        for piece in _pieces(kept):
            end = self._store(connection, sequence, end, piece, inline=inline)
        if dropped_bytes + skipped_bytes:
            _count_dropped(connection, sequence, dropped_bytes + skipped_bytes)

    def _store(
        self, connection: Connection, sequence: Sequence, start: int, records: list[OutputRecord], *, inline: bool
    ) -> int:
        stored = pack(records)
        size_bytes = sum(len(record.data) for record in records)
        common = {
            "machine_id": sequence.machine_id,
            "entry_id": sequence.entry_id,
            "attempt": sequence.attempt,
            "start": start,
            "size_bytes": size_bytes,
            "background": int(sequence.background),
        }
        if inline:
            _INSERT_INLINE.run(connection, **common, inline=stored)
        else:
            place = self._segments.append(sequence.machine, stored, lambda: _committed(connection, sequence.machine_id))
            _INSERT_PLACE.run(
                connection,
                **common,
                segment=place.segment,
                segment_start=place.start,
                segment_bytes=place.size_bytes,
            )
        return start + size_bytes


def output_end(connection: Connection, entry_id: int, attempt: int) -> int:
    """Bytes of output stored for an attempt, with those it inherited."""
    return _end(connection, entry_id, attempt)[0]


def output_given(connection: Connection, entry_id: int, attempt: int) -> int:
    """Bytes of output that were given for an attempt, with those it inherited and those that were only counted."""
    return sum(_end(connection, entry_id, attempt))


def begin_attempt(
    connection: Connection, entry_id: int, attempt: int, output_offset: int, *, counted: bool = False
) -> None:
    """Let `attempt` inherit the previous one's records before `output_offset`, as far as there are any.

    If it inherits all of a sequence that was cut at the limit, it inherits the count of what was dropped too. With
    `counted` the offset is one in all that was given: what of it is not stored was dropped.
    """
    end, dropped_bytes = _end(connection, entry_id, attempt - 1)
    if counted:
        dropped_bytes = max(0, output_offset - end)
    connection.execute(
        insert(output_attempts).values(
            entry_id=entry_id,
            attempt=attempt,
            inherited_bytes=min(max(0, output_offset), end),
            dropped_bytes=dropped_bytes if output_offset >= end else 0,
        )
    )


def _end(connection: Connection, entry_id: int, attempt: int) -> tuple[int, int]:
    """Where the sequence ends, and how much was dropped from it already."""
    piece = _END.first(connection, entry=entry_id, of_attempt=attempt)
    known = _ATTEMPT.first(connection, entry=entry_id, of_attempt=attempt)
    inherited_bytes, dropped_bytes = known or (0, 0)
    return (inherited_bytes if piece is None else piece[0]), dropped_bytes


def _fit(records: list[OutputRecord], room_bytes: int) -> tuple[list[OutputRecord], int]:
    """What fits, in order, and how many bytes do not: a stream is cut anywhere, a display is whole or not there."""
    kept: list[OutputRecord] = []
    dropped_bytes = 0
    for record in records:
        size_bytes = len(record.data)
        if dropped_bytes:
            dropped_bytes += size_bytes
        elif size_bytes <= room_bytes:
            room_bytes -= size_bytes
            if size_bytes:
                kept.append(record)
        else:
            if record.kind != "display" and room_bytes > 0:
                kept.append(OutputRecord(record.kind, record.data[:room_bytes]))
                size_bytes -= room_bytes
            dropped_bytes += size_bytes
    return kept, dropped_bytes


def _pieces(records: list[OutputRecord]) -> list[list[OutputRecord]]:
    """Records in groups small enough to be read at once."""
    groups: list[list[OutputRecord]] = []
    size_bytes = PIECE_LIMIT_BYTES
    for record in records:
        if size_bytes + len(record.data) > PIECE_LIMIT_BYTES:
            groups.append([])
            size_bytes = 0
        groups[-1].append(record)
        size_bytes += len(record.data)
    return groups


def _count_dropped(connection: Connection, sequence: Sequence, dropped_bytes: int) -> None:
    column = output_attempts.c.dropped_background_bytes if sequence.background else output_attempts.c.dropped_bytes
    row = (output_attempts.c.entry_id == sequence.entry_id) & (output_attempts.c.attempt == sequence.attempt)
    changed = connection.execute(update(output_attempts).where(row).values({column: column + dropped_bytes}))
    if changed.rowcount == 0:
        connection.execute(
            insert(output_attempts).values(
                {"entry_id": sequence.entry_id, "attempt": sequence.attempt, column.name: dropped_bytes}
            )
        )


def _committed(connection: Connection, machine_id: int) -> tuple[int, int]:
    """The machine's last segment and how much of it rows refer to."""
    row = connection.execute(
        select(output_pieces.c.segment, output_pieces.c.segment_start + output_pieces.c.segment_bytes)
        .where(output_pieces.c.machine_id == machine_id, output_pieces.c.segment.is_not(None))
        .order_by(output_pieces.c.segment.desc(), output_pieces.c.segment_start.desc())
        .limit(1)
    ).first()
    return (0, 0) if row is None else (row[0], row[1])
