"""Requests and answers as pydantic models: what is validated, and what the OpenAPI document shows."""

from __future__ import annotations

import math
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from torpor_api.ledger.machines import TAGS_LIMIT
from torpor_api.names import is_alias

CODE_LIMIT_BYTES = 1024 * 1024
STDIN_LIMIT_BYTES = 1024 * 1024
TAG_KEY_LIMIT = 128
TAG_VALUE_LIMIT = 512
MEMORY_MINIMUM_MB = 256
FORKS_LIMIT = 100
LONGEST_IDLE_SECONDS = 366 * 24 * 3600
LONGEST: Final = "longest"
"""In place of a time-out's seconds: the longest that the server allows."""


def _clean(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not contain null bytes")
    return value


def _code(value: str) -> str:
    if len(value) > CODE_LIMIT_BYTES or len(value.encode()) > CODE_LIMIT_BYTES:
        raise ValueError(f"must not be longer than {CODE_LIMIT_BYTES} bytes of UTF-8")
    return _clean(value)


def _stdin(value: str) -> str:
    if len(value) > STDIN_LIMIT_BYTES or len(value.encode()) > STDIN_LIMIT_BYTES:
        raise ValueError(f"must not be longer than {STDIN_LIMIT_BYTES} bytes of UTF-8")
    return value


def _seconds(value: object) -> object:
    if value == LONGEST:
        return math.inf
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f'must be a finite number of seconds, or "{LONGEST}"')
    return value


def _alias(value: str) -> str:
    if not is_alias(value):
        raise ValueError(
            "must be 1 to 63 letters, digits, dots, underscores and hyphens, beginning with a letter or a digit, "
            "and neither 16 letters and digits, as a machine's own name is, nor `new` or `list`"
        )
    return value


Alias = Annotated[str, AfterValidator(_alias)]
Code = Annotated[str, AfterValidator(_code)]
Stdin = Annotated[str, AfterValidator(_stdin)]
STDIN = Field(
    default=None,
    description="What it reads: `input()` gets its lines in order, and then meets the end. At most 1 MiB of UTF-8.",
)
NOTICES = Field(
    default=True,
    description="Whether the answer carries what the machine's users were not told yet; with `false` that is left for "
    "a later one.",
)
STDIN_OPEN = Field(default=False, description="More may follow while it runs, by `stdin` of its seq.")
TagKey = Annotated[str, Field(min_length=1, max_length=TAG_KEY_LIMIT), AfterValidator(_clean)]
TagValue = Annotated[str, Field(max_length=TAG_VALUE_LIMIT), AfterValidator(_clean)]
Tags = Annotated[dict[TagKey, TagValue], Field(max_length=TAGS_LIMIT)]
TimeoutSeconds = Annotated[
    float,
    Field(ge=1),
    BeforeValidator(_seconds),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 1}, {"type": "string", "const": LONGEST}]}),
]
"""Infinite for `LONGEST`."""
IdleSeconds = Annotated[float, Field(gt=0, le=LONGEST_IDLE_SECONDS, allow_inf_nan=False)]
MemoryMb = Annotated[int, Field(ge=MEMORY_MINIMUM_MB, le=2**31 - 1)]


Durability = Literal["interval", "instruction"]
DURABILITY = Field(
    default=None,
    description="When a result is answered: once it is in the log (`interval`, the default), or once a save that "
    "contains it is committed (`instruction`), so that nothing is ever executed again.",
)
Recovery = Literal["replay", "rollback"]
RECOVERY = Field(
    default=None,
    description="What becomes of what it did since its last save when its process is lost: `replay` (the default) "
    "executes it again, `rollback` leaves it behind, so that nothing is executed twice.",
)
ReplaySeconds = Annotated[float, Field(gt=0, le=LONGEST_IDLE_SECONDS, allow_inf_nan=False)]
REPLAY_SECONDS = Field(
    default=None,
    description="How much running time a recovery may execute again; the server's setting by default.",
)
Template = Literal["python", "data"]
TEMPLATE = Field(
    default=None,
    description="What a new machine starts from: `python` by default, or `data` with NumPy, pandas, Matplotlib and "
    "scikit-learn imported already.",
)


class Request(BaseModel):
    """A request of part 1: fields that we do not know are ignored, since published clients send some."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class StrictRequest(Request):
    """A request that only our own clients send: an unknown field is a mistake."""

    model_config = ConfigDict(extra="forbid")


class NewMachineRequest(Request):
    """What a new machine shall be like."""

    tags: Tags | None = None
    template: Template | None = TEMPLATE
    memory_mb: MemoryMb | None = Field(default=None, description="At least 256; the server's setting by default.")
    idle_seconds: IdleSeconds | None = Field(
        default=None,
        description="After how long without work it falls asleep; null: never; absent: the server's setting.",
    )
    durability: Durability | None = DURABILITY
    recovery: Recovery | None = RECOVERY
    replay_seconds: ReplaySeconds | None = REPLAY_SECONDS


class ChangeRequest(StrictRequest):
    """What is to be another; what is absent stays."""

    tags: Annotated[dict[TagKey, TagValue | None], Field(max_length=TAGS_LIMIT)] | None = Field(
        default=None, description="Tags to set; null takes one away; others stay."
    )
    memory_mb: MemoryMb | None = Field(
        default=None, description="At once; not less than the machine uses, or was saved with."
    )
    idle_seconds: IdleSeconds | None = Field(
        default=None, description="After how long without work it falls asleep; null: never."
    )
    durability: Durability | None = DURABILITY
    recovery: Recovery | None = RECOVERY
    replay_seconds: ReplaySeconds | None = REPLAY_SECONDS
    alias: Alias | None = Field(default=None, description="What the account calls it; null: nothing any more.")


class NewKeyRequest(StrictRequest):
    """What a new API key shall be like."""

    name: Annotated[str, Field(max_length=TAG_KEY_LIMIT), AfterValidator(_clean)] | None = Field(
        default=None, description="What you call it, to know later what it was for."
    )


class ListRequest(Request):
    """Which machines to list."""

    tags: Tags | None = Field(default=None, description="Only machines that carry all of these.")


class Instruction(Request):
    """Code to run."""

    code: Code
    timeout_seconds: TimeoutSeconds | None = Field(
        default=None,
        description="From 1 to the server's maximum, or `longest`, which is that; 15 by default. Counts running time "
        "only, and so what `input()` waits.",
    )
    stdin: Stdin | None = STDIN
    stdin_open: bool | None = STDIN_OPEN


class ExecRequest(Request):
    """An instruction for a machine."""

    instruction: Instruction
    interrupt: bool | None = Field(default=False, description="End what runs now with an error, and run this.")
    queue: bool | None = Field(default=False, description="Accept it though the machine is busy, to run after that.")


class CompleteRequest(StrictRequest):
    """Code that is being typed."""

    code: Code
    cursor: int | None = Field(
        default=None, ge=0, description="How many characters (code points) stand before the cursor; all by default."
    )


class RunRequest(StrictRequest):
    """Code to run, to be answered with all of it."""

    code: Code
    timeout_seconds: TimeoutSeconds | None = None
    interrupt: bool | None = Field(default=False, description="End what runs now with an error, and run this.")
    queue: bool | None = Field(default=False, description="Wait for what runs now, instead of 409 `machine_busy`.")
    timings: bool | None = Field(default=False, description="Answer with the phases of the wake, if there was one.")
    notices: bool | None = NOTICES
    stdin: Stdin | None = STDIN
    stdin_open: bool | None = STDIN_OPEN


class RunNewRequest(RunRequest):
    """Code to run on a new machine."""

    template: Template | None = TEMPLATE


class InterruptRequest(StrictRequest):
    """What to interrupt."""

    seq: Annotated[int, Field(ge=0, le=2**62)] | None = Field(default=None, description="Only this one.")


Generation = Annotated[int, Field(ge=0, le=2**62)]


class Point(StrictRequest):
    """A moment of a machine's history: one of the two."""

    generation: Generation | None = Field(default=None, description="A snapshot, as it was saved.")
    seq: Annotated[int, Field(ge=0, le=2**62)] | None = Field(
        default=None, description="When this instruction had just finished; reached by replay if need be."
    )

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if (self.generation is None) == (self.seq is None):
            raise ValueError("name a `generation` or a `seq`, one of the two")
        return self


class RollbackRequest(StrictRequest):
    """Where a machine is to go on from."""

    to: Point
    interrupt: bool | None = Field(default=False, description="End what runs and waits, instead of 409 `machine_busy`.")


class ForkRequest(StrictRequest):
    """Which state is to be forked, and how often."""

    at: Point | None = Field(default=None, description="Absent: as it is now, saved first.")
    count: Annotated[int, Field(ge=1, le=FORKS_LIMIT)] | None = Field(default=1, description="How many machines.")
    tags: Tags | None = Field(default=None, description="Absent: those of the machine that is forked.")


class RecoverRequest(StrictRequest):
    """A way out for a parked machine."""

    how: Literal["retry", "skip", "rollback", "export"]
    seq: Annotated[int, Field(ge=0, le=2**62)] | None = Field(
        default=None, description="For `skip`: the instruction that is undone; absent: the one that recovery blames."
    )
    generation: Generation | None = Field(
        default=None, description="For `rollback`: absent: the newest that recovery did not set aside."
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.seq is not None and self.how != "skip":
            raise ValueError("`seq` belongs to `skip`")
        if self.generation is not None and self.how != "rollback":
            raise ValueError("`generation` belongs to `rollback`")
        return self


class EmptyRequest(StrictRequest):
    """Nothing needs to be said."""


RequestId = Annotated[int, Field(ge=-(2**53), le=2**53)]


class WebSocketExec(Request):
    """What a client says on the WebSocket to run code."""

    type: Literal["exec"]
    instruction: Instruction
    interrupt: bool | None = False
    request_id: RequestId


class WebSocketInterrupt(InterruptRequest):
    """What it says to interrupt what runs."""

    type: Literal["interrupt"]
    request_id: RequestId


class WebSocketFollow(StrictRequest):
    """What it says to be told of an instruction from its beginning, as after a connection that broke."""

    type: Literal["follow"]
    seq: Annotated[int, Field(ge=0, le=2**53)]


class Answer(BaseModel):
    """Base of what is answered; used for documentation, the answers themselves are made without validation."""


class Account(Answer):
    """Whose key it is."""

    account: str


class MachineName(Answer):
    """The machine that was made, or deleted."""

    machine_name: str


class NoticeAnswer(Answer):
    """Something that its users should know about a machine."""

    id: int
    code: str
    message: str
    seqs: list[int]
    at: str


class KeyAnswer(Answer):
    """An API key without its secret."""

    id: str
    name: str
    created_at: str
    current: bool


class KeyList(Answer):
    """The account's API keys, oldest first."""

    keys: list[KeyAnswer]


class NewKey(Answer):
    """A new API key. `api_key` is shown only here."""

    id: str
    name: str
    api_key: str


class RevokedKey(Answer):
    """The key that lets nobody in any more."""

    id: str


class CompletionAnswer(Answer):
    """What could stand in place of the characters from `start` to `end`; there are none while an instruction runs."""

    matches: list[str]
    start: int
    end: int


class NamedMachine(Answer):
    """The machine that has the alias, and whether it was made for it just now."""

    machine_name: str
    alias: str
    created: bool


class Machine(Answer):
    """A machine in a list."""

    name: str
    alias: str | None
    created_at: str
    running: bool
    has_pending_instruction: bool
    expires_at: None
    tags: dict[str, str]
    state: Literal["awake", "asleep", "waking", "recovering", "parked"]
    template: Literal["python", "data"] | None
    memory_mb: int
    idle_seconds: float | None
    durability: Durability
    recovery: Literal["replay", "rollback"]
    replay_seconds: float
    last_used_at: str
    generation: int | None
    stored_bytes: int
    parked_reason: str | None


class MachineDetail(Machine):
    """A machine with its notices, and where its last rollback can be taken back to."""

    undo: Point | None
    lost_before: int | None
    notices: list[NoticeAnswer]


class MachineList(Answer):
    """Machines, newest first. `next_cursor` is there only if `limit` was given and more follow."""

    machines: list[Machine]
    next_cursor: str | None = None


class SnapshotAnswer(Answer):
    """A snapshot that is kept. `seq` is the last instruction that is finished in it."""

    generation: int
    line: int
    parent: int | None
    created_at: str
    seq: int | None
    position: int
    quiescent: bool
    image_bytes: int
    stored_bytes: int
    pinned: bool
    current: bool
    set_aside: bool


class FileEntry(Answer):
    """One entry of a folder."""

    name: str = Field(description="Bytes that are no UTF-8 are shown as escapes.")
    path: str = Field(description="Percent-encoded, to be put behind `/files/` as it is.")
    kind: Literal["file", "folder", "link", "fifo", "socket", "device"]
    size: int
    mode: str = Field(description="Octal, as `0644`.")
    modified: str
    target: str | None = Field(description="Where a link leads.")


class FileList(Answer):
    """A folder's entries, by name."""

    path: str
    entries: list[FileEntry]
    next_cursor: str | None


class WrittenFile(Answer):
    """What was written: what the server received, which is in the machine and in its log."""

    path: str
    size: int
    sha256: str


class RemovedFile(Answer):
    """What was removed."""

    path: str


class SnapshotList(Answer):
    """A machine's snapshots, newest first."""

    snapshots: list[SnapshotAnswer]


class RollbackAnswer(Answer):
    """What a rollback did. Rolling back to `undo` takes it back."""

    machine_name: str
    generation: int | None
    line: int
    undo: Point | None
    left_behind: list[int]
    replayed: list[int]


class RecoverAnswer(Answer):
    """How a machine was brought out of being parked. `generation` null: from its beginning."""

    machine_name: str
    how: Literal["retry", "skip", "rollback"]
    state: str
    generation: int | None
    line: int
    undone: int | None
    left_behind: list[int]


class CrashAnswer(Answer):
    """Whether the machine's process was killed; it has none while it is not awake."""

    machine_name: str
    crashed: bool


class ForkAnswer(Answer):
    """Names of the new machines, the snapshot that they begin with, and which instructions are not in it."""

    machines: list[str]
    generation: int | None
    lacks: list[int]


class ExecAnswer(Answer):
    """The instruction was accepted; without `instruction_seq`: the machine is busy."""

    instruction_seq: int | None = None
    interrupted: bool = False
    machine: str


class ErrorDetail(Answer):
    """An error with its traceback, and the steps that it took to end the instruction."""

    name: str
    message: str
    traceback: list[str]
    steps: list[str] | None = None


class ExecResult(Answer):
    """The value form has `value` and no `error`; the error form has `error` and no `value`."""

    value: str | None = None
    data: dict[str, Any] | None = None
    error: str | None = None
    error_detail: ErrorDetail | None = None
    runtime_ms: int


class ResultAnswer(Answer):
    """An instruction's result."""

    instruction_id: int
    result: ExecResult


class WakePhases(Answer):
    """Milliseconds of a wake, phase by phase; 0 for those that there were not. They add up to the wake."""

    lease: float
    room: float
    fetch: float
    assemble: float
    sandbox: float
    first_frame: float
    replay: float


class Timings(Answer):
    """Milliseconds: waiting for the machine, running, altogether; and held up by saves of its own machine.

    `wake` is there only where it was asked for; null: the instruction waited for no wake.
    """

    waited_ms: int | None
    runtime_ms: int | None
    total_ms: int | None
    waited_for_save_ms: int | None
    wake: WakePhases | None = None


class RunAnswer(Answer):
    """All that an instruction said."""

    machine: str
    instruction_seq: int
    result: ExecResult
    events: list[dict[str, Any]]
    notices: list[NoticeAnswer]
    timings: Timings


class InstructionAnswer(Answer):
    """An instruction of a machine's history, or a command, whose line `code` is; `events` only where one is asked for.

    Of one that is `expired` code and result are not kept any more; with `output_expired` its output is not.
    """

    instruction_seq: int
    kind: Literal["instruction", "command"]
    code: str
    stdin: str | None
    timeout_seconds: float
    state: Literal["waiting", "running", "finished"]
    result: ExecResult | None
    attempt: int
    undone: bool
    rolled_back: bool
    replayed: bool
    expired: bool
    output_expired: bool
    ended_by: str | None
    accepted_at: str
    started_at: str | None
    finished_at: str | None
    timings: Timings
    events: list[dict[str, Any]] | None = None


class History(Answer):
    """A machine's instructions, newest first. The last page has `lost_before` if a rebuild lost any below it."""

    instructions: list[InstructionAnswer]
    lost_before: int | None = None
    next_cursor: str | None = None


class Interrupted(Answer):
    """Which instruction was interrupted, if any."""

    interrupted: bool
    instruction_seq: int | None


class Health(Answer):
    """How the server is."""

    status: Literal["ok", "ready"]


class Error(Answer):
    """What every refusal looks like; `id` is in the server's log."""

    code: str
    id: str
    message: str
    hint: str | None = None
