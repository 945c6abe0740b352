"""Manifests for forks, known before they are stored."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0010"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "copies",
        sa.Column("machine", sa.Text(), nullable=False),
        sa.Column("manifest_key", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("machine", name=op.f("pk_copies")),
        sa.UniqueConstraint("manifest_key", name=op.f("uq_copies_manifest_key")),
        sqlite_strict=True,
    )
