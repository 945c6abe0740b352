"""What the ledger tells the API: frozen facts, read in one short transaction each."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from torpor_worker.ledger import (
    Durability,
    EndedBy,
    Entry,
    EntryKind,
    InstructionResult,
    OutputRecord,
    Recovery,
    Snapshot,
)

MachineState = Literal["awake", "asleep", "waking", "recovering", "parked"]
InstructionStatus = Literal["accepted", "started", "finished"]


@dataclass(frozen=True, slots=True)
class MachineSettings:
    """What a new machine is made with."""

    memory_mb: int
    idle_seconds: float | None
    """After so long without work it falls asleep; None: never."""
    template: str | None = None
    durability: Durability = Durability.INTERVAL
    recovery: Recovery = Recovery.REPLAY
    replay_seconds: float = 300.0
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A client's key for one request; unique per account, method and path, kept for a day."""

    key: str
    method: str
    path: str
    body_sha256: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """An instruction is in the log. `entry.position` is None while it waits for the machine."""

    seq: int
    entry: Entry
    repeated: bool
    """It is the earlier work of the same idempotency key; nothing was added."""


@dataclass(frozen=True, slots=True)
class Busy:
    """The machine has an unfinished instruction, and the caller did not want to wait; nothing was added."""

    running_seq: int | None
    """The one that is started, or will be first."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the machine's users should know."""

    id: int
    code: str
    message: str
    seqs: list[int]
    at: datetime
    delivered: bool
    """Whether an answer carried it in full."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key, without its secret, which nobody but its owner has."""

    id: str
    name: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class MachineRow:
    """A machine as its account sees it."""

    name: str
    alias: str | None
    account: str
    created_at: datetime
    tags: dict[str, str]
    memory_mb: int
    idle_seconds: float | None
    durability: Durability
    recovery: Recovery
    replay_seconds: float
    template: str | None
    """What it started from; None: an empty interpreter."""
    state: MachineState
    parked_reason: str | None
    has_pending_instruction: bool
    generation: int | None
    """The head's; None before the first save."""
    last_used_at: datetime
    stored_bytes: int
    undo: int | None
    """The generation that takes its last rollback back; None if there was none, or it is not kept any more."""
    lost_before: int | None
    """Instructions below this seq may be missing: the database was rebuilt from the store; None: it never was."""
    notices: list[Notice]


@dataclass(frozen=True, slots=True)
class Point:
    """A moment of a machine's history: a generation, or when an instruction had just finished. One of the two."""

    generation: int | None = None
    seq: int | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a point lies: a quiescent snapshot, and the entries behind it that are to be replayed."""

    snapshot: Snapshot | None
    """None: the machine's beginning."""
    line: int
    position: int
    """The last one that the point has."""
    tail: list[TailEntry]
    """The entries behind the snapshot that a replay to the position applies, in order."""
    lacks: list[int] = field(default_factory=list)
    """Seqs that the machine was given and that are not in it, if it was chosen though the machine is busy."""


@dataclass(frozen=True, slots=True)
class TailEntry:
    """An entry that a replay would apply."""

    id: int
    seq: int | None
    undone: bool
    ended_by: str | None
    expired: bool
    target: int | None = None
    ended_here: bool = True
    """Its end, if it is a command, belongs to the point."""


@dataclass(frozen=True, slots=True)
class SnapshotRow:
    """A snapshot as its account sees it."""

    snapshot: Snapshot
    seq: int | None
    """The last instruction that is finished in it; None if none is."""
    current: bool
    """It is the machine's head."""


@dataclass(frozen=True, slots=True)
class Unparked:
    """How a parked machine is to be recovered once more."""

    generation: int | None
    """The head now; None is its beginning."""
    line: int
    undone: int | None
    """The seq that it is recovered without."""


@dataclass(frozen=True, slots=True)
class RolledBack:
    """What a rollback did."""

    generation: int | None
    """The head now; None is its beginning."""
    line: int
    undo: int | None
    """The generation to roll back to if this was a mistake; None for a machine that was parked."""
    left_behind: list[int]
    """Seqs of instructions whose effects are undone."""
    replayed: list[int]
    """Seqs of instructions that run again behind the head, to reach the point."""
    stays_awake: bool
    """The machine is one that never falls asleep by itself."""


@dataclass(frozen=True, slots=True)
class InstructionRow:
    """One instruction of a machine's history."""

    seq: int
    code: str
    timeout_seconds: float
    status: InstructionStatus
    attempt: int
    result: InstructionResult | None
    undone: bool
    rolled_back: bool
    """A rollback left it behind: its effects are not in the machine's state."""
    replayed: bool
    expired: bool
    """Its code and its result, which it had, are not kept any more."""
    output_expired: bool
    """Its output, of which there was some, is not."""
    ended_by: EndedBy | None
    accepted_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    waited_for_save_ms: int | None
    """For how long it was held up by saves of its own machine; None until finished."""
    kind: EntryKind = EntryKind.EXECUTE
    """An instruction, or a command; then `code` is its `CommandSpec`."""
    background: bool = False
    """Of a command: nobody waits for it, and it sleeps with its machine."""
    stdin: str | None = None
    """What came with the code for it to read."""


@dataclass(frozen=True, slots=True)
class OutputPage:
    """A piece of an instruction's output, as of one moment. An event's id is `attempt.offset`."""

    records: list[tuple[int, OutputRecord]]
    """Each with the byte offset of its start; the first may begin in the middle of a stored record."""
    attempt: int
    end: int
    """The offset behind the last record of this page: the next call's `after`."""
    more: bool
    """Whether more is stored already behind `end`."""
    finished: bool
    """The instruction has its result, so that no foreground output will follow what is stored."""
    truncated_bytes: int
    """Output over the limit that was not stored; it belongs behind the last foreground record."""
    background_truncated_bytes: int
    """The same of background output; it belongs behind the last record."""
    restarted_from: int | None
    """The reader's attempt was given up, and what it had read from this offset on is void; the page begins there."""
    background_from: int | None
    """Records at this offset and behind it came after the result; None if there are none."""
    expired: bool = False
    """There was output, and it is not kept any more."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """An instruction, the beginning of its output, and the machine's unread notices, as of one moment."""

    instruction: InstructionRow
    output: OutputPage
    notices: list[Notice]
    """Those that no answer has carried yet."""


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a machine's history, for operators."""

    id: int
    at: datetime
    action: str
    fields: dict[str, Any]
