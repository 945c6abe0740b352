"""Commands beside instructions: entries of their own, that run several at a time, in snapshots too."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from torpor_api.ledger.migrations.checks import change_check

revision = "0022"
down_revision = "0021"

NUMBER: sa.types.TypeEngine[Any] = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
SECONDS: sa.types.TypeEngine[Any] = sa.Double().with_variant(sa.REAL(), "sqlite")


def upgrade() -> None:
    """Add columns and a table, and let what is true of instructions be asked of them only."""
    op.add_column("entries", _flag("entries", "background"))
    for name in ("target", "ended_behind", "ended_line", "exit_code", "exit_signal"):
        op.add_column("entries", sa.Column(name, NUMBER, nullable=True))
    change_check(
        "entries", "kind_is_known", "kind IN ('execute', 'reseed', 'command', 'command_input', 'command_signal')"
    )
    change_check("entries", "only_instructions_have_a_seq", "(kind IN ('execute', 'command')) = (seq IS NOT NULL)")
    change_check(
        "entries",
        "finished_has_a_result",
        "kind NOT IN ('execute', 'command') OR finished_at IS NULL OR runtime_ms IS NOT NULL",
    )
    change_check("entries", "ended_by_is_known", "ended_by IN ('timeout', 'interrupt', 'signal')")
    op.drop_index("ix_entries_running", "entries")
    op.create_index(
        "ix_entries_running",
        "entries",
        ["machine_id"],
        unique=True,
        sqlite_where=sa.text("kind = 'execute' AND started_at IS NOT NULL AND finished_at IS NULL"),
    )
    op.add_column("snapshots", sa.Column("running_said_bytes", NUMBER, nullable=True))
    op.add_column("snapshots", sa.Column("awaited_commands", NUMBER, nullable=False, server_default=sa.text("0")))
    op.drop_index("ix_snapshots_in_the_middle", "snapshots")
    op.create_index(
        "ix_snapshots_in_the_middle",
        "snapshots",
        ["machine_id"],
        sqlite_where=sa.text("running_seq IS NOT NULL OR awaited_commands > 0"),
    )
    op.create_table(
        "snapshot_commands",
        sa.Column("machine_id", NUMBER, nullable=False),
        sa.Column("generation", NUMBER, nullable=False),
        sa.Column("seq", NUMBER, nullable=False),
        sa.Column("attempt", NUMBER, nullable=False),
        sa.Column("used_seconds", SECONDS, nullable=False),
        sa.Column("output_offset", NUMBER, nullable=False),
        sa.Column("said_bytes", NUMBER, nullable=False),
        _flag("snapshot_commands", "background"),
        _flag("snapshot_commands", "again"),
        sa.PrimaryKeyConstraint("machine_id", "generation", "seq", name=op.f("pk_snapshot_commands")),
        sa.ForeignKeyConstraint(
            ["machine_id", "generation"],
            ["snapshots.machine_id", "snapshots.generation"],
            name=op.f("fk_snapshot_commands_machine_id_generation"),
            ondelete="CASCADE",
        ),
        sa.CheckConstraint(
            "attempt >= 1 AND output_offset >= 0 AND said_bytes >= 0",
            name=op.f("ck_snapshot_commands_place_makes_sense"),
        ),
        sqlite_strict=True,
    )


def _flag(table: str, name: str) -> sa.Column[Any]:
    check = sa.CheckConstraint(f"{name} IN (0, 1)", name=op.f(f"ck_{table}_{name}_is_a_flag"))
    return sa.Column(name, NUMBER, check, nullable=False, server_default=sa.text("0"))
