"""Names of the accounts' own for their machines."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0016"


def upgrade() -> None:
    """Add the column; no machine has such a name yet."""
    op.add_column("machines", sa.Column("alias", sa.Text()))
    op.create_index(
        "ix_machines_alias",
        "machines",
        ["account_id", "alias"],
        unique=True,
        sqlite_where=sa.text("alias IS NOT NULL"),
    )
