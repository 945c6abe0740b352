"""A finished instruction with all that its answer needs, in one short read."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from sqlalchemy import Connection, bindparam, or_, select

from torpor_api.errors import InstructionNotFound
from torpor_api.ledger import history, notices
from torpor_api.ledger import machines as machine_rows
from torpor_api.ledger.database import Statement
from torpor_api.ledger.output_page import read_page
from torpor_api.ledger.rows import Notice, Outcome, OutputPage
from torpor_api.ledger.schema import accounts, entries, machines, output_attempts, output_pieces
from torpor_api.ledger.schema import notices as notice_rows
from torpor_api.ledger.segments import Segments

PAGE_BYTES = 1024 * 1024

_COLUMNS = [*(column.name for column in entries.c), "has_output", "has_notices"]
_OUTCOME = Statement(
    select(
        *entries.c,
        or_(
            select(1).where(output_pieces.c.entry_id == entries.c.id).exists(),
            select(1).where(output_attempts.c.entry_id == entries.c.id).exists(),
        ),
        select(1).where(notice_rows.c.machine_id == machines.c.id, notice_rows.c.delivered == 0).exists(),
    )
    .join(machines, machines.c.id == entries.c.machine_id)
    .join(accounts, accounts.c.id == machines.c.account_id)
    .where(
        accounts.c.name == bindparam("account"),
        machines.c.name == bindparam("machine"),
        entries.c.seq == bindparam("of_seq"),
    )
)


def outcome(connection: Connection, segments: Segments, account: str, machine: str, seq: int) -> Outcome:
    """See `SqlLedger.outcome`."""
    found = _OUTCOME.first(connection, account=account, machine=machine, of_seq=seq)
    if found is None:
        machine_rows.identify(connection, account, machine)
        raise InstructionNotFound
    row: Any = SimpleNamespace(**dict(zip(_COLUMNS, found, strict=True)))
    instruction = history.instruction(row)
    unread: list[Notice] = []
    page = OutputPage(
        records=[],
        attempt=row.attempt,
        end=0,
        more=False,
        finished=instruction.result is not None,
        truncated_bytes=0,
        background_truncated_bytes=0,
        restarted_from=None,
        background_from=None,
    )
    if instruction.result is not None:
        if row.has_output:
            page = read_page(
                connection, segments, machine, seq, attempt=None, after=0, limit_bytes=PAGE_BYTES, background=False
            )
        if row.has_notices:
            unread = notices.read(connection, machine, delivered_too=False)
    return Outcome(instruction, page, unread)
