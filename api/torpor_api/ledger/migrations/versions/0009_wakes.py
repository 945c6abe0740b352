"""What a wake took, at the instruction that the machine was woken for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0007"


def upgrade() -> None:
    """Add the column; nothing is known of earlier wakes."""
    op.add_column("entries", sa.Column("wake", sa.Text(), nullable=True))
