"""Output of instructions: one sequence of records per attempt, addressed by byte offset, in rows and segments."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, insert, select, update

from torpor_api.errors import InstructionNotFound
from torpor_api.ledger.database import Statement
from torpor_api.ledger.rows import OutputPage
from torpor_api.ledger.schema import entries, machines, output_attempts, output_pieces
from torpor_api.ledger.segments import Place, Segments, pack, unpack
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
    """Writes output into rows and segments, and reads it back."""

    def __init__(self, segments: Segments, limit_bytes: int) -> None:
        self._segments = segments
        self._limit_bytes = limit_bytes

    def append(
        self, connection: Connection, sequence: Sequence, records: list[OutputRecord], *, inline_limit_bytes: int
    ) -> None:
        """Store records behind what is there, up to the limit of the sequence; count the rest."""
        end, dropped_before = _end(connection, sequence.entry_id, sequence.attempt)
        room = 0 if dropped_before else self._limit_bytes - end
        kept, dropped_bytes = _fit(records, room)
        inline = sum(len(record.data) for record in kept) <= inline_limit_bytes
        for piece in _pieces(kept):
            end = self._store(connection, sequence, end, piece, inline=inline)
        if dropped_bytes:
            _count_dropped(connection, sequence, dropped_bytes)

    def read(
        self,
        connection: Connection,
        machine: str,
        seq: int,
        attempt: int | None,
        after: int,
        limit_bytes: int,
        *,
        background: bool,
    ) -> OutputPage:
        """A page of the newest attempt; see `SqlLedger.output`."""
        entry = connection.execute(
            select(entries.c.id, entries.c.attempt, entries.c.finished_at)
            .join(machines, machines.c.id == entries.c.machine_id)
            .where(machines.c.name == machine, entries.c.seq == seq)
        ).first()
        if entry is None:
            raise InstructionNotFound
        newest = max(1, entry.attempt)
        attempts = {
            row.attempt: row
            for row in connection.execute(select(output_attempts).where(output_attempts.c.entry_id == entry.id))
        }
        restarted_from = None
        if attempt is not None and attempt < newest:
            shared = min(attempts[later].inherited_bytes for later in range(attempt + 1, newest + 1))
            if after > shared:
                restarted_from = after = shared
        reader = _PageReader(connection, self._segments, machine, entry.id, after, limit_bytes, background=background)
        reader.read(_ranges({number: row.inherited_bytes for number, row in attempts.items()}, newest))
        known = attempts.get(newest)
        return OutputPage(
            records=reader.records,
            attempt=newest,
            end=reader.end,
            more=reader.more,
            finished=entry.finished_at is not None,
            truncated_bytes=0 if known is None else known.dropped_bytes,
            background_truncated_bytes=0 if known is None else known.dropped_background_bytes,
            restarted_from=restarted_from,
            background_from=reader.background_from,
        )

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


class _PageReader:
    """Collects records from ranges of attempts until the page is full."""

    def __init__(
        self,
        connection: Connection,
        segments: Segments,
        machine: str,
        entry_id: int,
        after: int,
        limit_bytes: int,
        *,
        background: bool,
    ) -> None:
        self._connection = connection
        self._segments = segments
        self._machine = machine
        self._entry_id = entry_id
        self._background = background
        self._room = limit_bytes
        self.end = after
        self.more = False
        self.records: list[tuple[int, OutputRecord]] = []
        self.background_from: int | None = None

    def read(self, ranges: list[tuple[int, int, int | None]]) -> None:
        """Read each `(attempt, from, to)` in order."""
        for attempt, start, stop in ranges:
            query = (
                select(output_pieces)
                .where(
                    output_pieces.c.entry_id == self._entry_id,
                    output_pieces.c.attempt == attempt,
                    output_pieces.c.start + output_pieces.c.size_bytes > max(start, self.end),
                )
                .order_by(output_pieces.c.start)
            )
            if stop is not None:
                query = query.where(output_pieces.c.start < stop)
            if not self._background:
                query = query.where(output_pieces.c.background == 0)
            for piece in self._connection.execute(query):
                if self._room <= 0:
                    self.more = True
                    return
                stored = piece.inline
                if stored is None:
                    place = Place(piece.segment, piece.segment_start, piece.segment_bytes)
                    stored = self._segments.read(self._machine, place)
                self._take(piece.start, stored, stop, background=bool(piece.background))

    def _take(self, place: int, stored: bytes, stop: int | None, *, background: bool) -> None:
        for record in unpack(stored):
            record_end = place + len(record.data) if stop is None else min(stop, place + len(record.data))
            if record_end > self.end:
                if self._room <= 0:
                    self.more = True
                    return
                data = record.data[self.end - place : record_end - place]
                if background and self.background_from is None:
                    self.background_from = self.end
                self.records.append((self.end, OutputRecord(record.kind, data)))
                self._room -= len(data)
                self.end = record_end
            place += len(record.data)


def output_end(connection: Connection, entry_id: int, attempt: int) -> int:
    """Bytes of output stored for an attempt, with those it inherited."""
    return _end(connection, entry_id, attempt)[0]


def begin_attempt(connection: Connection, entry_id: int, attempt: int, output_offset: int) -> None:
    """Let `attempt` inherit the previous one's records before `output_offset`, as far as there are any."""
    inherited_bytes = min(output_offset, output_end(connection, entry_id, attempt - 1))
    connection.execute(
        insert(output_attempts).values(entry_id=entry_id, attempt=attempt, inherited_bytes=max(0, inherited_bytes))
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


def _ranges(inherited_bytes: dict[int, int], newest: int) -> list[tuple[int, int, int | None]]:
    """Which attempt tells which part of the newest one's sequence: `(attempt, from, to)`, `to` None for its end."""
    ranges: list[tuple[int, int, int | None]] = []
    stop: int | None = None
    for attempt in range(newest, 0, -1):
        start = inherited_bytes.get(attempt, 0)
        if stop is None or start < stop:
            ranges.append((attempt, start, stop))
            stop = start
        if stop == 0:
            break
    return ranges[::-1]
