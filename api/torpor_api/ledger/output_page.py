"""Output as it is read: pages of an attempt's sequence, put together from what several attempts have stored."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from sqlalchemy import Connection, Select, and_, func, select

from torpor_api.errors import InstructionNotFound
from torpor_api.ledger.rows import OutputPage
from torpor_api.ledger.schema import entries, machines, output_attempts, output_pieces
from torpor_api.ledger.segments import Place, Segments, unpack
from torpor_worker.ledger import OutputRecord


@dataclass(frozen=True, slots=True)
class Range:
    """The part of a sequence that one attempt has stored; `stop` is None for its end, wherever that is."""

    attempt: int
    start: int
    stop: int | None


def read_page(
    connection: Connection,
    segments: Segments,
    machine: str,
    seq: int,
    *,
    attempt: int | None,
    after: int,
    limit_bytes: int,
    background: bool,
) -> OutputPage:
    """A page of the newest attempt's sequence; see `SqlLedger.output`."""
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
    inherited_bytes = {number: row.inherited_bytes for number, row in attempts.items()}
    restarted_from = None
    if attempt is not None and attempt < newest:
        shared = min(inherited_bytes[later] for later in range(max(1, attempt) + 1, newest + 1))
        if after > shared:
            restarted_from = after = shared
    page = _Page(after, limit_bytes)
    for part in ranges(inherited_bytes, newest):
        if not page.more:
            _read_range(connection, segments, page, machine, entry.id, part, background=background)
    known = attempts.get(newest)
    return OutputPage(
        records=page.records,
        attempt=newest,
        end=page.end,
        more=page.more,
        finished=entry.finished_at is not None,
        truncated_bytes=0 if known is None else known.dropped_bytes,
        background_truncated_bytes=0 if known is None else known.dropped_background_bytes,
        restarted_from=restarted_from,
        background_from=page.background_from,
    )


def ranges(inherited_bytes: dict[int, int], newest: int) -> list[Range]:
    """Which attempt has stored which part of the newest one's sequence, in order.

    Each attempt after the first inherits that many bytes of the sequence of the one before it.
    """
    parts: list[Range] = []
    stop: int | None = None
    for attempt in range(newest, 0, -1):
        start = inherited_bytes.get(attempt, 0)
        if stop is None or start < stop:
            parts.append(Range(attempt, start, stop))
            stop = start
        if stop == 0:
            break
    return parts[::-1]


class _Page:
    """Records from an offset on, until there is no more room; it has one record at least if there is any."""

    def __init__(self, after: int, limit_bytes: int) -> None:
        self._room_bytes = limit_bytes
        self.end = after
        self.more = False
        self.records: list[tuple[int, OutputRecord]] = []
        self.background_from: int | None = None

    def take(self, start: int, stored: bytes, stop: int | None, *, background: bool) -> None:
        """Add the records of a piece that lie behind what is here, as far as `stop`."""
        for record in unpack(stored):
            record_end = start + len(record.data) if stop is None else min(stop, start + len(record.data))
            if record_end > self.end:
                if self._room_bytes <= 0:
                    self.more = True
                    return
                data = record.data[self.end - start : record_end - start]
                if background and self.background_from is None:
                    self.background_from = self.end
                self.records.append((self.end, OutputRecord(record.kind, data)))
                self._room_bytes -= len(data)
                self.end = record_end
            start += len(record.data)


def _read_range(
    connection: Connection,
    segments: Segments,
    page: _Page,
    machine: str,
    entry_id: int,
    part: Range,
    *,
    background: bool,
) -> None:
    query = _pieces(entry_id, part, page.end)
    if not background:
        query = query.where(output_pieces.c.background == 0)
    with closing(connection.execute(query)) as pieces:
        for piece in pieces:
            stored = piece.inline
            if stored is None:
                place = Place(piece.segment, piece.segment_start, piece.segment_bytes)
                stored = segments.read(machine, place)
            page.take(piece.start, stored, part.stop, background=bool(piece.background))
            if page.more:
                return


def _pieces(entry_id: int, part: Range, after: int) -> Select[tuple[object, ...]]:
    mine = and_(output_pieces.c.entry_id == entry_id, output_pieces.c.attempt == part.attempt)
    first = select(func.max(output_pieces.c.start)).where(mine, output_pieces.c.start <= after).scalar_subquery()
    query = select(output_pieces).where(mine, output_pieces.c.start >= func.coalesce(first, 0))
    if part.stop is not None:
        query = query.where(output_pieces.c.start < part.stop)
    return query.order_by(output_pieces.c.start)
