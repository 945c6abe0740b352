"""Old snapshots, and those in the middle of an instruction, are found without a look at all of a machine's."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0011"


def upgrade() -> None:
    """Add the indexes."""
    op.create_index("ix_snapshots_machine_id_created_at", "snapshots", ["machine_id", "created_at"])
    op.create_index(
        "ix_snapshots_in_the_middle", "snapshots", ["machine_id"], sqlite_where=sa.text("running_seq IS NOT NULL")
    )
