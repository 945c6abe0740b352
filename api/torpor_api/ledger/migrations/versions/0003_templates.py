"""What a machine starts from (NULL for those made before, which start from nothing), and templates in the store."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column and the table."""
    op.add_column("machines", sa.Column("template", sa.Text(), nullable=True))
    op.create_table(
        "templates",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("manifest_key", sa.Text(), nullable=False),
        sa.Column("pack_key", sa.Text(), nullable=False),
        sa.Column("manifest_sha256", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["pack_key"], ["packs.object_key"], name=op.f("fk_templates_pack_key")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_templates")),
        sa.UniqueConstraint("manifest_key", name=op.f("uq_templates_manifest_key")),
        sa.UniqueConstraint("pack_key", name=op.f("uq_templates_pack_key")),
        sqlite_strict=True,
    )
