"""Which attempt runs in a snapshot; how durable a machine's answers are; what instructions waited for saves."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


NUMBER: sa.types.TypeEngine[int] = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the columns. What was before counts as an interval machine's, and as first attempts."""
    op.add_column("snapshots", sa.Column("running_attempt", NUMBER, nullable=False, server_default="1"))
    op.add_column("machines", sa.Column("durability", sa.Text(), nullable=False, server_default="interval"))
    op.add_column("entries", sa.Column("waited_for_save_ms", NUMBER, nullable=True))
