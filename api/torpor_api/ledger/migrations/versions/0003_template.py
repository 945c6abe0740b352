"""What a machine starts from; NULL for those made before, which start from nothing."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0001"


def upgrade() -> None:
    """Add the column."""
    op.add_column("machines", sa.Column("template", sa.Text(), nullable=True))
