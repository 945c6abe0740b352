"""Output as it is read: pages of an attempt's sequence, put together from what several attempts have stored."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from sqlalchemy import Connection, and_, bindparam, func, select

from torpor_api.errors import InstructionNotFound
from torpor_api.ledger.database import Statement
from torpor_api.ledger.rows import OutputPage
from torpor_api.ledger.schema import entries, machines, output_attempts, output_pieces
from torpor_api.ledger.segments import Place, Segments, unpack
from torpor_worker.ledger import OutputRecord

NO_STOP = 2**62

_ENTRY = Statement(
    select(entries.c.id, entries.c.attempt, entries.c.finished_at, entries.c.output_expired)
    .join(machines, machines.c.id == entries.c.machine_id)
    .where(machines.c.name == bindparam("machine"), entries.c.seq == bindparam("of_seq"))
)
_ATTEMPTS = Statement(
    select(
        output_attempts.c.attempt,
        output_attempts.c.inherited_bytes,
        output_attempts.c.dropped_bytes,
        output_attempts.c.dropped_background_bytes,
    ).where(output_attempts.c.entry_id == bindparam("entry"))
)
_MINE = and_(output_pieces.c.entry_id == bindparam("entry"), output_pieces.c.attempt == bindparam("of_attempt"))
_FIRST = select(func.max(output_pieces.c.start)).where(_MINE, output_pieces.c.start <= bindparam("after"))
_PIECES = Statement(
    select(
        output_pieces.c.start,
        output_pieces.c.background,
        output_pieces.c.inline,
        output_pieces.c.segment,
        output_pieces.c.segment_start,
        output_pieces.c.segment_bytes,
    )
    .where(
        _MINE,
        output_pieces.c.start >= func.coalesce(_FIRST.scalar_subquery(), 0),
        output_pieces.c.start < bindparam("stop"),
        output_pieces.c.background <= bindparam("latest"),
    )
    .order_by(output_pieces.c.start)
)


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
    entry = _ENTRY.first(connection, machine=machine, of_seq=seq)
    if entry is None:
        raise InstructionNotFound
    entry_id, newest, finished_at, expired = entry
    newest = max(1, newest)
    attempts = {row[0]: row[1:] for row in _ATTEMPTS.run(connection, entry=entry_id).fetchall()}
    inherited_bytes = {number: inherited for number, (inherited, _, _) in attempts.items()}
    restarted_from = None
    if attempt is not None and attempt < newest:
        shared = min(inherited_bytes[later] for later in range(max(1, attempt) + 1, newest + 1))
        if after > shared:
            restarted_from = after = shared
    page = _Page(after, limit_bytes)
    for part in ranges(inherited_bytes, newest):
        if not page.more:
            _read_range(connection, segments, page, machine, entry_id, part, background=background)
    _, truncated_bytes, background_truncated_bytes = attempts.get(newest, (0, 0, 0))
    return OutputPage(
        records=page.records,
        attempt=newest,
        end=page.end,
        more=page.more,
        finished=finished_at is not None,
        truncated_bytes=truncated_bytes,
        background_truncated_bytes=background_truncated_bytes,
        restarted_from=restarted_from,
        background_from=page.background_from,
        expired=bool(expired),
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
    pieces = _PIECES.run(
        connection,
        entry=entry_id,
        of_attempt=part.attempt,
        after=page.end,
        stop=NO_STOP if part.stop is None else part.stop,
        latest=int(background),
    )
    with closing(pieces):
        for start, is_background, stored, *place in pieces:
            piece = segments.read(machine, Place(*place)) if stored is None else stored
            page.take(start, piece, part.stop, background=bool(is_background))
            if page.more:
                return
