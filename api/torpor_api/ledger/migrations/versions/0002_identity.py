"""The ledger's own id, which marks the store that its objects are in."""

from __future__ import annotations

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the table and its only row."""
    identity = op.create_table(
        "identity",
        sa.Column("id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_identity")),
        sqlite_strict=True,
    )
    op.bulk_insert(identity, [{"id": secrets.token_hex(16)}])
