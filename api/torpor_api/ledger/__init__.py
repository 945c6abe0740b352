"""Accounts, machines, their logs, output and snapshots in SQL: the one truth that API and worker share."""

from torpor_api.ledger.changes import Changes, Watch
from torpor_api.ledger.expiry import LogRetention
from torpor_api.ledger.rows import (
    Accepted,
    Busy,
    Event,
    Idempotency,
    InstructionRow,
    MachineRow,
    MachineSettings,
    Notice,
    Outcome,
    OutputPage,
    Place,
    Point,
    RolledBack,
    SnapshotRow,
    Unparked,
)
from torpor_api.ledger.sql_ledger import SqlLedger

__all__ = [
    "Accepted",
    "Busy",
    "Changes",
    "Event",
    "Idempotency",
    "InstructionRow",
    "LogRetention",
    "MachineRow",
    "MachineSettings",
    "Notice",
    "Outcome",
    "OutputPage",
    "Place",
    "Point",
    "RolledBack",
    "SnapshotRow",
    "SqlLedger",
    "Unparked",
    "Watch",
]
