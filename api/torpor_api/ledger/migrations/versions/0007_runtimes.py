"""Runtimes that snapshots need: what they are, where the store has them, and which are quarantined."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0005"


def upgrade() -> None:
    """Add both tables."""
    op.create_table(
        "runtimes",
        sa.Column("series", sa.Text(), nullable=False),
        sa.Column("runsc_version", sa.Text(), nullable=False),
        sa.Column("runsc_sha256", sa.Text(), nullable=False),
        sa.Column("rootfs_sha256", sa.Text(), nullable=False),
        sa.Column("newest", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("object_key", sa.Text(), nullable=True),
        sa.Column("object_sha256", sa.Text(), nullable=True),
        sa.Column("quarantined_at", sa.Integer(), nullable=True),
        sa.Column("quarantine_reason", sa.Text(), nullable=True),
        sa.CheckConstraint("newest IN (0, 1)", name=op.f("ck_runtimes_newest_is_a_flag")),
        sa.CheckConstraint(
            "(object_key IS NULL) = (object_sha256 IS NULL)", name=op.f("ck_runtimes_object_is_known_whole")
        ),
        sa.CheckConstraint(
            "(quarantined_at IS NULL) = (quarantine_reason IS NULL)",
            name=op.f("ck_runtimes_quarantine_has_a_reason"),
        ),
        sa.PrimaryKeyConstraint("series", name=op.f("pk_runtimes")),
        sa.UniqueConstraint("object_key", name=op.f("uq_runtimes_object_key")),
        sqlite_strict=True,
    )
    op.create_table(
        "runtime_objects",
        sa.Column("series", sa.Text(), nullable=False),
        sa.Column("object_key", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["series"], ["runtimes.series"], name=op.f("fk_runtime_objects_series"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("series", "object_key", name=op.f("pk_runtime_objects")),
        sqlite_strict=True,
    )
    op.create_index(op.f("ix_runtime_objects_object_key"), "runtime_objects", ["object_key"])
