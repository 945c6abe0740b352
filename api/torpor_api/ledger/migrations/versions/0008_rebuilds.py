"""What a database that was rebuilt from its store lacks: the log before a line, and objects that could not be read."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0009"


def upgrade() -> None:
    """Add the columns and the table."""
    op.add_column("machines", sa.Column("rebuilt_line", sa.Integer(), nullable=True))
    op.add_column("machines", sa.Column("rebuilt_seq", sa.Integer(), nullable=True))
    op.create_table(
        "kept_objects",
        sa.Column("object_key", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("object_key", name=op.f("pk_kept_objects")),
        sqlite_strict=True,
    )
