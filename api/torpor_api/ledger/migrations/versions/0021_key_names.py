"""What their owners call API keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    """Add the column; keys of before have no name."""
    op.add_column("keys", sa.Column("name", sa.Text(), nullable=False, server_default=sa.text("''")))
