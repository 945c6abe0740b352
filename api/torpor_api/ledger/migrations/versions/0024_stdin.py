"""What instructions are given to read."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from torpor_api.ledger.migrations.checks import change_check

revision = "0024"
down_revision = "0023"

NUMBER: sa.types.TypeEngine[Any] = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the columns, and the kind of entry that brings more of it."""
    op.add_column("entries", sa.Column("stdin", sa.Text()))
    check = sa.CheckConstraint("stdin_open IN (0, 1)", name=op.f("ck_entries_stdin_open_is_a_flag"))
    op.add_column("entries", sa.Column("stdin_open", NUMBER, check, nullable=False, server_default=sa.text("0")))
    change_check(
        "entries",
        "kind_is_known",
        "kind IN ('execute', 'reseed', 'command', 'command_input', 'command_signal', 'file', 'input')",
    )
