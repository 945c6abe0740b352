"""The first schema: accounts, machines, the log, output, snapshots, notices."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

NUMBER: sa.types.TypeEngine[int] = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
SECONDS: sa.types.TypeEngine[float] = sa.Double().with_variant(sa.REAL(), "sqlite")


def upgrade() -> None:
    """Make every table."""
    op.create_table(
        "accounts",
        sa.Column("id", NUMBER, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", NUMBER, nullable=False),
        sa.CheckConstraint("name <> ''", name=op.f("ck_accounts_has_a_name")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
        sa.UniqueConstraint("name", name=op.f("uq_accounts_name")),
        sqlite_strict=True,
    )
    op.create_table(
        "condemned",
        sa.Column("id", NUMBER, nullable=False),
        sa.Column("object_key", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_condemned")),
        sa.UniqueConstraint("object_key", name=op.f("uq_condemned_object_key")),
        sqlite_strict=True,
    )
    op.create_table(
        "condemned_machines",
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_condemned_machines")),
        sqlite_strict=True,
    )
    op.create_table(
        "packs",
        sa.Column("object_key", sa.Text(), nullable=False),
        sa.Column("size_bytes", NUMBER, nullable=False),
        sa.CheckConstraint("size_bytes >= 0", name=op.f("ck_packs_size_is_not_negative")),
        sa.PrimaryKeyConstraint("object_key", name=op.f("pk_packs")),
        sqlite_strict=True,
    )
    op.create_table(
        "sessions",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("opened_at", NUMBER, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sessions")),
        sqlite_strict=True,
    )
    op.create_table(
        "keys",
        sa.Column("id", NUMBER, nullable=False),
        sa.Column("account_id", NUMBER, nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", NUMBER, nullable=False),
        sa.CheckConstraint("length(digest) = 32", name=op.f("ck_keys_is_a_sha256")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_keys_account_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_keys")),
        sa.UniqueConstraint("account_id", "digest", name=op.f("uq_keys_account_id_digest")),
        sqlite_strict=True,
    )
    op.create_table(
        "machines",
        sa.Column("id", NUMBER, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("account_id", NUMBER, nullable=False),
        sa.Column("created_at", NUMBER, nullable=False),
        sa.Column("memory_bytes", NUMBER, nullable=False),
        sa.Column("idle_seconds", SECONDS, nullable=True),
        sa.Column("session_id", sa.Text(), nullable=True),
        sa.Column("epoch", NUMBER, server_default=sa.text("0"), nullable=False),
        sa.Column("ready", NUMBER, server_default=sa.text("0"), nullable=False),
        sa.Column("recovering", NUMBER, server_default=sa.text("0"), nullable=False),
        sa.Column("parked_reason", sa.Text(), nullable=True),
        sa.Column("line", NUMBER, server_default=sa.text("0"), nullable=False),
        sa.Column("next_line", NUMBER, server_default=sa.text("1"), nullable=False),
        sa.Column("head_generation", NUMBER, nullable=True),
        sa.Column("next_generation", NUMBER, server_default=sa.text("0"), nullable=False),
        sa.Column("next_seq", NUMBER, server_default=sa.text("0"), nullable=False),
        sa.Column("next_position", NUMBER, server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint(
            "epoch >= 0 AND next_seq >= 0 AND next_position >= 0", name=op.f("ck_machines_counters_are_not_negative")
        ),
        sa.CheckConstraint("head_generation < next_generation", name=op.f("ck_machines_head_was_allotted")),
        sa.CheckConstraint("line < next_line", name=op.f("ck_machines_line_was_allotted")),
        sa.CheckConstraint("memory_bytes > 0 AND idle_seconds >= 0", name=op.f("ck_machines_settings_make_sense")),
        sa.CheckConstraint("parked_reason IS NULL OR session_id IS NULL", name=op.f("ck_machines_parked_is_not_held")),
        sa.CheckConstraint(
            "ready = 0 OR (session_id IS NOT NULL AND recovering = 0)", name=op.f("ck_machines_ready_is_awake")
        ),
        sa.CheckConstraint("ready IN (0, 1)", name=op.f("ck_machines_ready_is_a_flag")),
        sa.CheckConstraint(
            "recovering = 0 OR session_id IS NOT NULL", name=op.f("ck_machines_recovering_has_a_session")
        ),
        sa.CheckConstraint("recovering IN (0, 1)", name=op.f("ck_machines_recovering_is_a_flag")),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_machines_account_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name=op.f("fk_machines_session_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_machines")),
        sa.UniqueConstraint("name", name=op.f("uq_machines_name")),
        sqlite_autoincrement=True,
        sqlite_strict=True,
    )
    op.create_index("ix_machines_account_id_id", "machines", ["account_id", "id"], unique=False)
    op.create_index(
        "ix_machines_held", "machines", ["session_id"], unique=False, sqlite_where=sa.text("session_id IS NOT NULL")
    )
    op.create_table(
        "entries",
        sa.Column("id", NUMBER, nullable=False),
        sa.Column("machine_id", NUMBER, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("seq", NUMBER, nullable=True),
        sa.Column("position", NUMBER, nullable=True),
        sa.Column("attempt", NUMBER, server_default=sa.text("0"), nullable=False),
        sa.Column("timeout_seconds", SECONDS, nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("seed", sa.LargeBinary(), nullable=True),
        sa.Column("accepted_at", NUMBER, nullable=False),
        sa.Column("started_at", NUMBER, nullable=True),
        sa.Column("finished_at", NUMBER, nullable=True),
        sa.Column("value", sa.Text(), nullable=True),
        sa.Column("data", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("error_detail", sa.Text(), nullable=True),
        sa.Column("runtime_ms", NUMBER, nullable=True),
        sa.Column("undone", NUMBER, server_default=sa.text("0"), nullable=False),
        sa.Column("ended_by", sa.Text(), nullable=True),
        sa.Column("replays", NUMBER, server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint(
            "(kind = 'execute') = (seq IS NOT NULL)", name=op.f("ck_entries_only_instructions_have_a_seq")
        ),
        sa.CheckConstraint("(kind = 'reseed') = (seed IS NOT NULL)", name=op.f("ck_entries_only_reseeds_have_a_seed")),
        sa.CheckConstraint("ended_by IN ('timeout', 'interrupt')", name=op.f("ck_entries_ended_by_is_known")),
        sa.CheckConstraint(
            "kind <> 'execute' OR finished_at IS NULL OR runtime_ms IS NOT NULL",
            name=op.f("ck_entries_finished_has_a_result"),
        ),
        sa.CheckConstraint("kind IN ('execute', 'reseed')", name=op.f("ck_entries_kind_is_known")),
        sa.CheckConstraint("(position IS NULL) = (attempt = 0)", name=op.f("ck_entries_started_has_an_attempt")),
        sa.CheckConstraint("(position IS NULL) = (started_at IS NULL)", name=op.f("ck_entries_started_has_a_position")),
        sa.CheckConstraint("attempt >= 0 AND replays >= 0", name=op.f("ck_entries_counts_are_not_negative")),
        sa.CheckConstraint(
            "finished_at IS NOT NULL OR (value IS NULL AND data IS NULL AND error IS NULL"
            " AND error_detail IS NULL AND runtime_ms IS NULL AND undone = 0 AND ended_by IS NULL)",
            name=op.f("ck_entries_only_finished_has_a_result"),
        ),
        sa.CheckConstraint("length(seed) = 32", name=op.f("ck_entries_seed_is_32_bytes")),
        sa.CheckConstraint("runtime_ms >= 0", name=op.f("ck_entries_runtime_is_not_negative")),
        sa.CheckConstraint("seq >= 0 AND position >= 0", name=op.f("ck_entries_numbers_are_not_negative")),
        sa.CheckConstraint("timeout_seconds >= 0", name=op.f("ck_entries_timeout_is_not_negative")),
        sa.CheckConstraint("undone IN (0, 1)", name=op.f("ck_entries_undone_is_a_flag")),
        sa.CheckConstraint("value IS NULL OR error IS NULL", name=op.f("ck_entries_value_or_error")),
        sa.ForeignKeyConstraint(
            ["machine_id"], ["machines.id"], name=op.f("fk_entries_machine_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_entries")),
        sa.UniqueConstraint("machine_id", "position", name=op.f("uq_entries_machine_id_position")),
        sa.UniqueConstraint("machine_id", "seq", name=op.f("uq_entries_machine_id_seq")),
        sqlite_autoincrement=True,
        sqlite_strict=True,
    )
    op.create_index(
        "ix_entries_running",
        "entries",
        ["machine_id"],
        unique=True,
        sqlite_where=sa.text("started_at IS NOT NULL AND finished_at IS NULL"),
    )
    op.create_index(
        "ix_entries_unfinished",
        "entries",
        ["machine_id", "id"],
        unique=False,
        sqlite_where=sa.text("finished_at IS NULL"),
    )
    op.create_table(
        "events",
        sa.Column("id", NUMBER, nullable=False),
        sa.Column("machine_id", NUMBER, nullable=False),
        sa.Column("at", NUMBER, nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("fields", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["machine_id"], ["machines.id"], name=op.f("fk_events_machine_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
        sqlite_autoincrement=True,
        sqlite_strict=True,
    )
    op.create_index("ix_events_machine_id_id", "events", ["machine_id", "id"], unique=False)
    op.create_table(
        "machine_tags",
        sa.Column("machine_id", NUMBER, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["machine_id"], ["machines.id"], name=op.f("fk_machine_tags_machine_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("machine_id", "name", name=op.f("pk_machine_tags")),
        sqlite_strict=True,
    )
    op.create_index("ix_machine_tags_name_value", "machine_tags", ["name", "value"], unique=False)
    op.create_table(
        "notices",
        sa.Column("id", NUMBER, nullable=False),
        sa.Column("machine_id", NUMBER, nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("seqs", sa.Text(), nullable=False),
        sa.Column("at", NUMBER, nullable=False),
        sa.Column("delivered", NUMBER, server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("delivered IN (0, 1)", name=op.f("ck_notices_delivered_is_a_flag")),
        sa.ForeignKeyConstraint(
            ["machine_id"], ["machines.id"], name=op.f("fk_notices_machine_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notices")),
        sqlite_autoincrement=True,
        sqlite_strict=True,
    )
    op.create_index("ix_notices_machine_id_id", "notices", ["machine_id", "id"], unique=False)
    op.create_table(
        "saves",
        sa.Column("machine_id", NUMBER, nullable=False),
        sa.Column("generation", NUMBER, nullable=False),
        sa.Column("epoch", NUMBER, nullable=False),
        sa.Column("manifest_key", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["machine_id"], ["machines.id"], name=op.f("fk_saves_machine_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("machine_id", "generation", name=op.f("pk_saves")),
        sa.UniqueConstraint("manifest_key", name=op.f("uq_saves_manifest_key")),
        sqlite_strict=True,
    )
    op.create_table(
        "idempotency",
        sa.Column("account_id", NUMBER, nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("body_sha256", sa.Text(), nullable=False),
        sa.Column("created_at", NUMBER, nullable=False),
        sa.Column("machine_id", NUMBER, nullable=True),
        sa.Column("entry_id", NUMBER, nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_idempotency_account_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["entry_id"], ["entries.id"], name=op.f("fk_idempotency_entry_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["machine_id"], ["machines.id"], name=op.f("fk_idempotency_machine_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "method", "path", "key", name=op.f("pk_idempotency")),
        sqlite_strict=True,
    )
    op.create_index(op.f("ix_idempotency_created_at"), "idempotency", ["created_at"], unique=False)
    op.create_index(op.f("ix_idempotency_entry_id"), "idempotency", ["entry_id"], unique=False)
    op.create_index(op.f("ix_idempotency_machine_id"), "idempotency", ["machine_id"], unique=False)
    op.create_table(
        "output_attempts",
        sa.Column("entry_id", NUMBER, nullable=False),
        sa.Column("attempt", NUMBER, nullable=False),
        sa.Column("inherited_bytes", NUMBER, server_default=sa.text("0"), nullable=False),
        sa.Column("dropped_bytes", NUMBER, server_default=sa.text("0"), nullable=False),
        sa.Column("dropped_background_bytes", NUMBER, server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint(
            "attempt > 1 OR inherited_bytes = 0", name=op.f("ck_output_attempts_the_first_inherits_nothing")
        ),
        sa.CheckConstraint("attempt >= 1", name=op.f("ck_output_attempts_attempt_is_counted")),
        sa.CheckConstraint(
            "inherited_bytes >= 0 AND dropped_bytes >= 0 AND dropped_background_bytes >= 0",
            name=op.f("ck_output_attempts_sizes_are_not_negative"),
        ),
        sa.ForeignKeyConstraint(
            ["entry_id"], ["entries.id"], name=op.f("fk_output_attempts_entry_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("entry_id", "attempt", name=op.f("pk_output_attempts")),
        sqlite_strict=True,
    )
    op.create_table(
        "output_pieces",
        sa.Column("id", NUMBER, nullable=False),
        sa.Column("machine_id", NUMBER, nullable=False),
        sa.Column("entry_id", NUMBER, nullable=False),
        sa.Column("attempt", NUMBER, nullable=False),
        sa.Column("start", NUMBER, nullable=False),
        sa.Column("size_bytes", NUMBER, nullable=False),
        sa.Column("background", NUMBER, server_default=sa.text("0"), nullable=False),
        sa.Column("inline", sa.LargeBinary(), nullable=True),
        sa.Column("segment", NUMBER, nullable=True),
        sa.Column("segment_start", NUMBER, nullable=True),
        sa.Column("segment_bytes", NUMBER, nullable=True),
        sa.CheckConstraint("(inline IS NULL) = (segment IS NOT NULL)", name=op.f("ck_output_pieces_is_in_one_place")),
        sa.CheckConstraint(
            "(segment IS NULL) = (segment_start IS NULL) AND (segment IS NULL) = (segment_bytes IS NULL)",
            name=op.f("ck_output_pieces_segment_place_is_whole"),
        ),
        sa.CheckConstraint(
            "attempt >= 1 AND start >= 0 AND size_bytes > 0", name=op.f("ck_output_pieces_place_makes_sense")
        ),
        sa.CheckConstraint("background IN (0, 1)", name=op.f("ck_output_pieces_background_is_a_flag")),
        sa.ForeignKeyConstraint(
            ["entry_id"], ["entries.id"], name=op.f("fk_output_pieces_entry_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_output_pieces")),
        sa.UniqueConstraint("entry_id", "attempt", "start", name=op.f("uq_output_pieces_entry_id_attempt_start")),
        sqlite_strict=True,
    )
    op.create_index(
        "ix_output_pieces_segment",
        "output_pieces",
        ["machine_id", "segment"],
        unique=False,
        sqlite_where=sa.text("segment IS NOT NULL"),
    )
    op.create_table(
        "snapshots",
        sa.Column("machine_id", NUMBER, nullable=False),
        sa.Column("generation", NUMBER, nullable=False),
        sa.Column("line", NUMBER, nullable=False),
        sa.Column("parent", NUMBER, nullable=True),
        sa.Column("position", NUMBER, nullable=False),
        sa.Column("running_seq", NUMBER, nullable=True),
        sa.Column("running_used_seconds", SECONDS, nullable=False),
        sa.Column("output_offset", NUMBER, nullable=False),
        sa.Column("manifest_sha256", sa.Text(), nullable=False),
        sa.Column("stored_bytes", NUMBER, nullable=False),
        sa.Column("image_bytes", NUMBER, nullable=False),
        sa.Column("series", sa.Text(), nullable=False),
        sa.Column("created_at", NUMBER, nullable=False),
        sa.CheckConstraint("parent < generation", name=op.f("ck_snapshots_parent_is_older")),
        sa.CheckConstraint("position >= -1", name=op.f("ck_snapshots_position_makes_sense")),
        sa.CheckConstraint(
            "stored_bytes >= 0 AND image_bytes >= 0 AND output_offset >= 0",
            name=op.f("ck_snapshots_sizes_are_not_negative"),
        ),
        sa.ForeignKeyConstraint(
            ["machine_id", "generation"],
            ["saves.machine_id", "saves.generation"],
            name=op.f("fk_snapshots_machine_id_generation"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("machine_id", "generation", name=op.f("pk_snapshots")),
        sqlite_strict=True,
    )
    op.create_table(
        "pack_references",
        sa.Column("machine_id", NUMBER, nullable=False),
        sa.Column("generation", NUMBER, nullable=False),
        sa.Column("object_key", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["machine_id", "generation"],
            ["snapshots.machine_id", "snapshots.generation"],
            name=op.f("fk_pack_references_machine_id_generation"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["object_key"], ["packs.object_key"], name=op.f("fk_pack_references_object_key")),
        sa.PrimaryKeyConstraint("machine_id", "generation", "object_key", name=op.f("pk_pack_references")),
        sqlite_strict=True,
    )
    op.create_index(op.f("ix_pack_references_object_key"), "pack_references", ["object_key"], unique=False)
