"""Changes of files: entries that are finished from the beginning, with what they write beside the ledger."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from torpor_api.ledger.migrations.checks import change_check

revision = "0023"
down_revision = "0022"

NUMBER: sa.types.TypeEngine[Any] = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
KINDS = "'execute', 'reseed', 'command', 'command_input', 'command_signal', 'file'"


def upgrade() -> None:
    """Add the columns; no machine has such an entry yet."""
    _add("body", sa.Text(), "only_changes_write_files", "kind = 'file' OR body IS NULL")
    _add("body_bytes", NUMBER, "bodies_have_a_size", "(body IS NULL) = (body_bytes IS NULL) AND body_bytes >= 0")
    change_check("entries", "kind_is_known", f"kind IN ({KINDS})")
    op.create_index("ix_entries_body", "entries", ["body"], sqlite_where=sa.text("body IS NOT NULL"))
    op.create_index(
        "ix_entries_with_bodies", "entries", ["machine_id", "position"], sqlite_where=sa.text("body IS NOT NULL")
    )


def _add(name: str, kind: sa.types.TypeEngine[Any], check: str, condition: str) -> None:
    constraint = sa.CheckConstraint(condition, name=op.f(f"ck_entries_{check}"))
    op.add_column("entries", sa.Column(name, kind, constraint, nullable=True))
