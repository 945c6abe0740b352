"""Accounts, machines, their logs, output and snapshots in SQL: the one truth that API and worker share."""

from torpor_api.ledger.changes import Changes, Watch
from torpor_api.ledger.rows import (
    Accepted,
    Answer,
    Busy,
    Event,
    Idempotency,
    InstructionRow,
    MachineRow,
    Notice,
    OutputPage,
)
from torpor_api.ledger.sql_ledger import SqlLedger

__all__ = [
    "Accepted",
    "Answer",
    "Busy",
    "Changes",
    "Event",
    "Idempotency",
    "InstructionRow",
    "MachineRow",
    "Notice",
    "OutputPage",
    "SqlLedger",
    "Watch",
]
