"""The tables. Every time is in microseconds of UTC and for display only; order is by ids.

What the application promises is refused here too where a constraint can say it: dense numbers are unique, at most one
instruction of a machine runs, a machine without a session is not ready, a result belongs to a finished entry.
"""

from __future__ import annotations

from sqlalchemy import (
    REAL,
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.types import TypeEngine

NUMBER: TypeEngine[int] = BigInteger().with_variant(Integer(), "sqlite")
SECONDS: TypeEngine[float] = Double().with_variant(REAL(), "sqlite")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _flag(name: str) -> Column[int]:
    return Column(name, NUMBER, nullable=False, server_default=text("0"))


def _is_flag(name: str) -> CheckConstraint:
    return CheckConstraint(f"{name} IN (0, 1)", name=f"{name}_is_a_flag")


def _machine_id() -> Column[int]:
    return Column("machine_id", NUMBER, ForeignKey("machines.id", ondelete="CASCADE"), nullable=False)


identity = Table(
    "identity",
    metadata,
    Column("id", Text, primary_key=True),  # one row, for ever
    sqlite_strict=True,
)

accounts = Table(
    "accounts",
    metadata,
    Column("id", NUMBER, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("created_at", NUMBER, nullable=False),
    CheckConstraint("name <> ''", name="has_a_name"),
    sqlite_strict=True,
)

keys = Table(
    "keys",
    metadata,
    Column("id", NUMBER, primary_key=True),
    Column("account_id", NUMBER, ForeignKey("accounts.id", ondelete="CASCADE"), nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("created_at", NUMBER, nullable=False),
    Column("name", Text, nullable=False, server_default=text("''")),  # what its owner calls it
    UniqueConstraint("account_id", "digest"),
    CheckConstraint("length(digest) = 32", name="is_a_sha256"),
    sqlite_strict=True,
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("worker", Text, nullable=False),
    Column("opened_at", NUMBER, nullable=False),
    sqlite_strict=True,
)

machines = Table(
    "machines",
    metadata,
    Column("id", NUMBER, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("account_id", NUMBER, ForeignKey("accounts.id", ondelete="CASCADE"), nullable=False),
    Column("created_at", NUMBER, nullable=False),
    Column("memory_bytes", NUMBER, nullable=False),
    Column("idle_seconds", SECONDS),
    Column("session_id", Text, ForeignKey("sessions.id")),
    Column("epoch", NUMBER, nullable=False, server_default=text("0")),
    _flag("ready"),
    _flag("recovering"),
    Column("parked_reason", Text),
    Column("line", NUMBER, nullable=False, server_default=text("0")),
    Column("next_line", NUMBER, nullable=False, server_default=text("1")),
    Column("head_generation", NUMBER),
    Column("next_generation", NUMBER, nullable=False, server_default=text("0")),
    Column("next_seq", NUMBER, nullable=False, server_default=text("0")),
    Column("next_position", NUMBER, nullable=False, server_default=text("0")),
    Column("template", Text),
    Column("alias", Text),  # a name of the account's own
    Column("rebuilt_line", NUMBER),  # a rebuild from the store began it: there is no log of lines before it
    Column("rebuilt_seq", NUMBER),  # the first that was allotted since
    Column("recovery", Text, nullable=False, server_default=text("'replay'")),
    Column("replay_seconds", SECONDS, nullable=False, server_default=text("300.0")),
    Column("recovery_tries", NUMBER, nullable=False, server_default=text("0")),  # with the present head, not proved
    Column("recovery_deaths", NUMBER, nullable=False, server_default=text("0")),  # of processes of the present head
    Column("log_from", NUMBER, nullable=False, server_default=text("0")),  # the first seq whose code may be kept
    Column("output_from", NUMBER, nullable=False, server_default=text("0")),  # the first whose output may be
    Column("parked_seq", NUMBER),  # what is to blame, if that is known
    CheckConstraint("recovery IN ('replay', 'rollback')", name="recovery_is_known"),
    CheckConstraint("replay_seconds > 0", name="replay_is_bounded"),
    CheckConstraint("recovery_tries >= 0 AND recovery_deaths >= 0", name="tries_are_counted"),
    Column("durability", Text, nullable=False, server_default=text("'interval'")),
    _is_flag("ready"),
    _is_flag("recovering"),
    CheckConstraint("ready = 0 OR (session_id IS NOT NULL AND recovering = 0)", name="ready_is_awake"),
    CheckConstraint("recovering = 0 OR session_id IS NOT NULL", name="recovering_has_a_session"),
    CheckConstraint("parked_reason IS NULL OR session_id IS NULL", name="parked_is_not_held"),
    CheckConstraint("memory_bytes > 0 AND idle_seconds >= 0", name="settings_make_sense"),
    CheckConstraint("epoch >= 0 AND next_seq >= 0 AND next_position >= 0", name="counters_are_not_negative"),
    CheckConstraint("line < next_line", name="line_was_allotted"),
    CheckConstraint("head_generation < next_generation", name="head_was_allotted"),
    Index("ix_machines_account_id_id", "account_id", "id"),
    Index("ix_machines_alias", "account_id", "alias", unique=True, sqlite_where=text("alias IS NOT NULL")),
    Index("ix_machines_held", "session_id", sqlite_where=text("session_id IS NOT NULL")),
    sqlite_strict=True,
    sqlite_autoincrement=True,
)

lines = Table(
    "lines",
    metadata,
    _machine_id(),
    Column("line", NUMBER, nullable=False),
    Column("parent", NUMBER, nullable=False),
    Column("generation", NUMBER),  # of the parent's, the last one that this line comes from
    Column("position", NUMBER, nullable=False),  # of the parent's, the last one that this line has
    Column("undo", NUMBER),  # the generation that the machine was before the rollback which began this line
    PrimaryKeyConstraint("machine_id", "line"),
    CheckConstraint("parent < line", name="parent_is_older"),
    CheckConstraint("position >= -1", name="position_makes_sense"),
    sqlite_strict=True,
)

machine_tags = Table(
    "machine_tags",
    metadata,
    _machine_id(),
    Column("name", Text, nullable=False),
    Column("value", Text, nullable=False),
    PrimaryKeyConstraint("machine_id", "name"),
    Index("ix_machine_tags_name_value", "name", "value"),
    sqlite_strict=True,
)

entries = Table(
    "entries",
    metadata,
    Column("id", NUMBER, primary_key=True),
    _machine_id(),
    Column("kind", Text, nullable=False),
    Column("seq", NUMBER),
    Column("position", NUMBER),
    Column("line", NUMBER),
    Column("attempt", NUMBER, nullable=False, server_default=text("0")),
    Column("timeout_seconds", SECONDS, nullable=False),
    Column("code", Text, nullable=False),
    Column("seed", LargeBinary),
    Column("stdin", Text),  # what an instruction is given to read
    Column("accepted_at", NUMBER, nullable=False),
    Column("started_at", NUMBER),
    Column("finished_at", NUMBER),
    Column("value", Text),
    Column("data", Text),
    Column("error", Text),
    Column("error_detail", Text),
    Column("runtime_ms", NUMBER),
    _flag("undone"),
    _flag("rolled_back"),
    Column("ended_by", Text),
    Column("replays", NUMBER, nullable=False, server_default=text("0")),
    Column("wake", Text),  # JSON: milliseconds of each phase, if the machine was woken for it
    _flag("output_expired"),
    _flag("expired"),
    _is_flag("output_expired"),
    _is_flag("expired"),
    Column("waited_for_save_ms", NUMBER),
    Column("body", Text),  # of a change of files: the key of what it writes, while that is kept
    Column("body_bytes", NUMBER),
    _flag("stdin_open"),  # it may be given more
    _is_flag("stdin_open"),
    _flag("background"),  # of a command: nobody waits for it
    Column("target", NUMBER),  # of input or a signal: the seq that it is for
    Column("ended_behind", NUMBER),  # the highest position that had been started when it ended
    Column("ended_line", NUMBER),  # the machine's line when it ended
    Column("exit_code", NUMBER),  # of a command
    Column("exit_signal", NUMBER),
    _is_flag("background"),
    UniqueConstraint("machine_id", "seq"),
    UniqueConstraint("machine_id", "position"),
    CheckConstraint(
        "kind IN ('execute', 'reseed', 'command', 'command_input', 'command_signal', 'file', 'input')",
        name="kind_is_known",
    ),
    CheckConstraint("(kind IN ('execute', 'command')) = (seq IS NOT NULL)", name="only_instructions_have_a_seq"),
    CheckConstraint("(kind = 'reseed') = (seed IS NOT NULL)", name="only_reseeds_have_a_seed"),
    CheckConstraint("length(seed) = 32", name="seed_is_32_bytes"),
    CheckConstraint("kind = 'file' OR body IS NULL", name="only_changes_write_files"),
    CheckConstraint("(body IS NULL) = (body_bytes IS NULL) AND body_bytes >= 0", name="bodies_have_a_size"),
    CheckConstraint("seq >= 0 AND position >= 0", name="numbers_are_not_negative"),
    CheckConstraint("timeout_seconds >= 0", name="timeout_is_not_negative"),
    CheckConstraint("(position IS NULL) = (started_at IS NULL)", name="started_has_a_position"),
    CheckConstraint("(position IS NULL) = (line IS NULL)", name="started_has_a_line"),
    CheckConstraint("(position IS NULL) = (attempt = 0)", name="started_has_an_attempt"),
    CheckConstraint("attempt >= 0 AND replays >= 0", name="counts_are_not_negative"),
    CheckConstraint("value IS NULL OR error IS NULL", name="value_or_error"),
    CheckConstraint(
        "finished_at IS NOT NULL OR (value IS NULL AND data IS NULL AND error IS NULL AND error_detail IS NULL"
        " AND runtime_ms IS NULL AND undone = 0 AND ended_by IS NULL)",
        name="only_finished_has_a_result",
    ),
    CheckConstraint(
        "kind NOT IN ('execute', 'command') OR finished_at IS NULL OR runtime_ms IS NOT NULL",
        name="finished_has_a_result",
    ),
    CheckConstraint("runtime_ms >= 0", name="runtime_is_not_negative"),
    CheckConstraint("ended_by IN ('timeout', 'interrupt', 'signal')", name="ended_by_is_known"),
    CheckConstraint("rolled_back = 0 OR finished_at IS NOT NULL", name="only_finished_is_rolled_back"),
    _is_flag("undone"),
    _is_flag("rolled_back"),
    Index("ix_entries_body", "body", sqlite_where=text("body IS NOT NULL")),
    Index("ix_entries_with_bodies", "machine_id", "position", sqlite_where=text("body IS NOT NULL")),
    Index("ix_entries_unfinished", "machine_id", "id", sqlite_where=text("finished_at IS NULL")),
    Index(
        "ix_entries_running",
        "machine_id",
        unique=True,
        sqlite_where=text("kind = 'execute' AND started_at IS NOT NULL AND finished_at IS NULL"),
    ),
    sqlite_strict=True,
    sqlite_autoincrement=True,
)

output_attempts = Table(
    "output_attempts",
    metadata,
    Column("entry_id", NUMBER, ForeignKey("entries.id", ondelete="CASCADE"), nullable=False),
    Column("attempt", NUMBER, nullable=False),
    Column("inherited_bytes", NUMBER, nullable=False, server_default=text("0")),
    Column("dropped_bytes", NUMBER, nullable=False, server_default=text("0")),
    Column("dropped_background_bytes", NUMBER, nullable=False, server_default=text("0")),
    PrimaryKeyConstraint("entry_id", "attempt"),
    CheckConstraint("attempt >= 1", name="attempt_is_counted"),
    CheckConstraint("attempt > 1 OR inherited_bytes = 0", name="the_first_inherits_nothing"),
    CheckConstraint(
        "inherited_bytes >= 0 AND dropped_bytes >= 0 AND dropped_background_bytes >= 0", name="sizes_are_not_negative"
    ),
    sqlite_strict=True,
)

output_pieces = Table(
    "output_pieces",
    metadata,
    Column("id", NUMBER, primary_key=True),
    Column("machine_id", NUMBER, nullable=False),  # the entry's, to find its last segment
    Column("entry_id", NUMBER, ForeignKey("entries.id", ondelete="CASCADE"), nullable=False),
    Column("attempt", NUMBER, nullable=False),
    Column("start", NUMBER, nullable=False),
    Column("size_bytes", NUMBER, nullable=False),
    _flag("background"),
    Column("inline", LargeBinary),
    Column("segment", NUMBER),
    Column("segment_start", NUMBER),
    Column("segment_bytes", NUMBER),
    UniqueConstraint("entry_id", "attempt", "start"),
    _is_flag("background"),
    CheckConstraint("attempt >= 1 AND start >= 0 AND size_bytes > 0", name="place_makes_sense"),
    CheckConstraint("(inline IS NULL) = (segment IS NOT NULL)", name="is_in_one_place"),
    CheckConstraint(
        "(segment IS NULL) = (segment_start IS NULL) AND (segment IS NULL) = (segment_bytes IS NULL)",
        name="segment_place_is_whole",
    ),
    Index("ix_output_pieces_segment", "machine_id", "segment", sqlite_where=text("segment IS NOT NULL")),
    sqlite_strict=True,
)

saves = Table(
    "saves",
    metadata,
    _machine_id(),
    Column("generation", NUMBER, nullable=False),
    Column("epoch", NUMBER, nullable=False),
    Column("manifest_key", Text, nullable=False, unique=True),
    PrimaryKeyConstraint("machine_id", "generation"),
    sqlite_strict=True,
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("machine_id", NUMBER, nullable=False),
    Column("generation", NUMBER, nullable=False),
    Column("line", NUMBER, nullable=False),
    Column("parent", NUMBER),
    Column("position", NUMBER, nullable=False),
    Column("running_seq", NUMBER),
    Column("running_used_seconds", SECONDS, nullable=False),
    Column("output_offset", NUMBER, nullable=False),
    Column("manifest_sha256", Text, nullable=False),
    Column("stored_bytes", NUMBER, nullable=False),
    Column("image_bytes", NUMBER, nullable=False),
    Column("series", Text, nullable=False),
    Column("created_at", NUMBER, nullable=False),
    _flag("pinned"),
    _flag("base"),
    _flag("set_aside"),
    _is_flag("set_aside"),
    Column("running_attempt", NUMBER, nullable=False, server_default=text("1")),
    Column("running_said_bytes", NUMBER),
    Column("awaited_commands", NUMBER, nullable=False, server_default=text("0")),  # that run in it
    PrimaryKeyConstraint("machine_id", "generation"),
    ForeignKeyConstraint(["machine_id", "generation"], ["saves.machine_id", "saves.generation"], ondelete="CASCADE"),
    CheckConstraint("position >= -1", name="position_makes_sense"),
    CheckConstraint("parent < generation", name="parent_is_older"),
    CheckConstraint("base = 0 OR (parent IS NULL AND running_seq IS NULL)", name="base_comes_first"),
    _is_flag("pinned"),
    _is_flag("base"),
    CheckConstraint("stored_bytes >= 0 AND image_bytes >= 0 AND output_offset >= 0", name="sizes_are_not_negative"),
    Index("ix_snapshots_machine_id_created_at", "machine_id", "created_at"),
    Index(
        "ix_snapshots_in_the_middle",
        "machine_id",
        sqlite_where=text("running_seq IS NOT NULL OR awaited_commands > 0"),
    ),
    sqlite_strict=True,
)

snapshot_commands = Table(
    "snapshot_commands",
    metadata,
    Column("machine_id", NUMBER, nullable=False),
    Column("generation", NUMBER, nullable=False),
    Column("seq", NUMBER, nullable=False),
    Column("attempt", NUMBER, nullable=False),
    Column("used_seconds", SECONDS, nullable=False),
    Column("output_offset", NUMBER, nullable=False),
    Column("said_bytes", NUMBER, nullable=False),  # as its guest counts
    _flag("background"),
    _flag("again"),  # it had its end: a rollback went back to before that
    _is_flag("background"),
    _is_flag("again"),
    PrimaryKeyConstraint("machine_id", "generation", "seq"),
    ForeignKeyConstraint(
        ["machine_id", "generation"], ["snapshots.machine_id", "snapshots.generation"], ondelete="CASCADE"
    ),
    CheckConstraint("attempt >= 1 AND output_offset >= 0 AND said_bytes >= 0", name="place_makes_sense"),
    sqlite_strict=True,
)

packs = Table(
    "packs",
    metadata,
    Column("object_key", Text, primary_key=True),
    Column("size_bytes", NUMBER, nullable=False),
    CheckConstraint("size_bytes >= 0", name="size_is_not_negative"),
    sqlite_strict=True,
)

pack_references = Table(
    "pack_references",
    metadata,
    Column("machine_id", NUMBER, nullable=False),
    Column("generation", NUMBER, nullable=False),
    Column("object_key", Text, ForeignKey("packs.object_key"), nullable=False, index=True),
    PrimaryKeyConstraint("machine_id", "generation", "object_key"),
    ForeignKeyConstraint(
        ["machine_id", "generation"], ["snapshots.machine_id", "snapshots.generation"], ondelete="CASCADE"
    ),
    sqlite_strict=True,
)

templates = Table(
    "templates",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", Text, nullable=False),
    Column("manifest_key", Text, nullable=False, unique=True),
    Column("pack_key", Text, ForeignKey("packs.object_key"), nullable=False, unique=True),
    Column("manifest_sha256", Text),
    sqlite_strict=True,
)

runtimes = Table(
    "runtimes",
    metadata,
    Column("series", Text, primary_key=True),
    Column("runsc_version", Text, nullable=False),
    Column("runsc_sha256", Text, nullable=False),
    Column("rootfs_sha256", Text, nullable=False),
    _flag("newest"),  # the one of new machines
    Column("object_key", Text, unique=True),  # of its description in the store, once all of it is there
    Column("object_sha256", Text),
    Column("quarantined_at", NUMBER),
    Column("quarantine_reason", Text),
    _is_flag("newest"),
    CheckConstraint("(object_key IS NULL) = (object_sha256 IS NULL)", name="object_is_known_whole"),
    CheckConstraint("(quarantined_at IS NULL) = (quarantine_reason IS NULL)", name="quarantine_has_a_reason"),
    sqlite_strict=True,
)

runtime_objects = Table(
    "runtime_objects",
    metadata,
    Column("series", Text, ForeignKey("runtimes.series", ondelete="CASCADE"), nullable=False),
    Column("object_key", Text, nullable=False, index=True),
    PrimaryKeyConstraint("series", "object_key"),
    sqlite_strict=True,
)

copies = Table(
    "copies",
    metadata,
    Column("machine", Text, primary_key=True),  # there is none of this name yet
    Column("manifest_key", Text, nullable=False, unique=True),
    sqlite_strict=True,
)

condemned_machines = Table(
    "condemned_machines",
    metadata,
    Column("name", Text, primary_key=True),
    sqlite_strict=True,
)

condemned = Table(
    "condemned",
    metadata,
    Column("id", NUMBER, primary_key=True),
    Column("object_key", Text, nullable=False, unique=True),
    sqlite_strict=True,
)

kept_objects = Table(
    "kept_objects",
    metadata,
    Column("object_key", Text, primary_key=True),  # a rebuild could not read it, or what needs it: it is not garbage
    sqlite_strict=True,
)

notices = Table(
    "notices",
    metadata,
    Column("id", NUMBER, primary_key=True),
    _machine_id(),
    Column("code", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("seqs", Text, nullable=False),
    Column("at", NUMBER, nullable=False),
    _flag("delivered"),
    _is_flag("delivered"),
    Index("ix_notices_machine_id_id", "machine_id", "id"),
    sqlite_strict=True,
    sqlite_autoincrement=True,
)

events = Table(
    "events",
    metadata,
    Column("id", NUMBER, primary_key=True),
    _machine_id(),
    Column("at", NUMBER, nullable=False),
    Column("action", Text, nullable=False),
    Column("fields", Text, nullable=False),
    Index("ix_events_machine_id_id", "machine_id", "id"),
    sqlite_strict=True,
    sqlite_autoincrement=True,
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("account_id", NUMBER, ForeignKey("accounts.id", ondelete="CASCADE"), nullable=False),
    Column("method", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("body_sha256", Text, nullable=False),
    Column("created_at", NUMBER, nullable=False, index=True),
    Column("machine_id", NUMBER, ForeignKey("machines.id", ondelete="CASCADE"), index=True),
    Column("entry_id", NUMBER, ForeignKey("entries.id", ondelete="CASCADE"), index=True),
    Column("answer", Text),
    PrimaryKeyConstraint("account_id", "method", "path", "key"),
    sqlite_strict=True,
)
