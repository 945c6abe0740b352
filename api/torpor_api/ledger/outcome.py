"""An instruction with all that its answer needs, in one short read."""

from __future__ import annotations

from sqlalchemy import Connection

from torpor_api.ledger import history, notices
from torpor_api.ledger.output_page import read_page
from torpor_api.ledger.rows import Outcome
from torpor_api.ledger.segments import Segments

PAGE_BYTES = 1024 * 1024


def outcome(connection: Connection, segments: Segments, account: str, machine: str, seq: int) -> Outcome:
    """See `SqlLedger.outcome`."""
    return Outcome(
        history.one(connection, account, machine, seq),
        read_page(connection, segments, machine, seq, attempt=None, after=0, limit_bytes=PAGE_BYTES, background=False),
        notices.unread(connection, machine),
    )
