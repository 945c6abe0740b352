"""How each machine is recovered, what its recoveries have cost, and what of its log is not kept any more."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

NUMBER: sa.types.TypeEngine[Any] = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
SECONDS: sa.types.TypeEngine[Any] = sa.Double().with_variant(sa.REAL(), "sqlite")


def upgrade() -> None:
    """Add the columns."""
    _add("machines", "recovery", sa.Text(), "'replay'", "recovery IN ('replay', 'rollback')", "recovery_is_known")
    _add("machines", "replay_seconds", SECONDS, "300.0", "replay_seconds > 0", "replay_is_bounded")
    _add("machines", "recovery_tries", NUMBER, "0")
    _add(
        "machines", "recovery_deaths", NUMBER, "0", "recovery_tries >= 0 AND recovery_deaths >= 0", "tries_are_counted"
    )
    op.add_column("machines", sa.Column("parked_seq", NUMBER, nullable=True))
    _add_flag("entries", "output_expired")
    _add_flag("entries", "expired")
    _add_flag("snapshots", "set_aside")


def _add_flag(table: str, name: str) -> None:
    _add(table, name, NUMBER, "0", f"{name} IN (0, 1)", f"{name}_is_a_flag")


def _add(
    table: str, name: str, kind: sa.types.TypeEngine[Any], default: str, check: str = "", check_name: str = ""
) -> None:
    checks = [sa.CheckConstraint(check, name=op.f(f"ck_{table}_{check_name}"))] if check else []
    op.add_column(table, sa.Column(name, kind, *checks, nullable=False, server_default=sa.text(default)))
