"""How far each machine's log and output have expired."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0008"


def upgrade() -> None:
    """Add the columns: nothing has expired yet."""
    for name in ("log_from", "output_from"):
        number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
        op.add_column("machines", sa.Column(name, number, nullable=False, server_default=sa.text("0")))
