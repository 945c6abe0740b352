"""What the server tells of machines, as frozen records. Fields that this version does not know are kept as extras."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from ._errors import MachineBusy
from ._events import Event, Notice


class Record(BaseModel):
    """A record of the wire: frozen, and open to fields that a newer server adds."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="allow")


class Point(Record):
    """A moment of a machine's history."""

    generation: int | None = None
    seq: int | None = None


class ApiKey(Record):
    """An API key of the account's, without its secret."""

    id: str
    name: str = ""
    created_at: datetime
    current: bool = False
    """Whether it is the one that this client uses."""


class NewApiKey(Record):
    """A new API key. Its secret is here and nowhere else; it shows in no `repr`."""

    id: str
    name: str = ""
    api_key: SecretStr
    """`<account>.<secret>`; `api_key.get_secret_value()` gives it as a text."""


class ApiKeys(Record):
    """A list of them."""

    keys: tuple[ApiKey, ...]


class Completion(Record):
    """What could stand in place of the characters from `start` to `end` of some code."""

    matches: tuple[str, ...]
    start: int
    end: int


class MachineInfo(Record):
    """A machine as the server sees it. Lists fill the first fields, `Machine.detail` all that the server has."""

    name: str
    alias: str | None = None
    """What the account calls it."""
    created_at: datetime
    running: bool
    """Whether it is awake."""
    has_pending_instruction: bool = False
    tags: dict[str, str] = Field(default_factory=dict)
    state: str | None = None
    """`awake`, `asleep`, `waking`, `recovering` or `parked`."""
    parked_reason: str | None = None
    template: str | None = None
    """What it started from: `python` or `data`."""
    memory_mb: int | None = None
    idle_seconds: float | None = None
    """After so long without work it falls asleep; None: it stays awake."""
    durability: str | None = None
    """`interval`: answers are in the log; `instruction`: each waits for a save that contains it."""
    recovery: str | None = None
    """`replay` or `rollback`: what becomes of what it did since its last save when its process is lost."""
    replay_seconds: float | None = None
    """How much running time a recovery may execute again."""
    generation: int | None = None
    """Of its newest snapshot."""
    last_used_at: datetime | None = None
    stored_bytes: int | None = None
    undo: Point | None = None
    """Rolling back to this takes its last rollback back; None if there was none."""
    lost_before: int | None = None
    """Instructions below this number may be missing: the server's database was lost and rebuilt from its store."""
    notices: tuple[Notice, ...] = ()


class Instruction(Record):
    """One instruction of a machine's history."""

    seq: int = Field(validation_alias="instruction_seq")
    kind: str = "instruction"
    """`instruction` or `command`."""
    code: str
    stdin: str | None = None
    """What came with the code for it to read."""
    state: str | None = None
    """`waiting`, `running` or `finished`."""
    result: dict[str, Any] | None = None
    """As the server stores it: `value` or `error`, `data`, `error_detail`, `runtime_ms`; None until finished."""
    ended_by: str | None = None
    """`timeout` or `interrupt`, if one of them ended it."""
    replayed: bool = False
    """Whether it was executed again in a recovery."""
    rolled_back: bool = False
    """Whether a rollback left it behind: its effects are not in the machine's state."""
    undone: bool = False
    """Whether it killed its process, and is never replayed."""
    expired: bool = False
    """Whether its code and its result are not kept any more: it has neither."""
    output_expired: bool = False
    """Whether its output, of which there was some, is not kept any more."""
    accepted_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    timings: dict[str, Any] = Field(default_factory=dict)
    """`waited_ms`, `runtime_ms`, `total_ms`, `waited_for_save_ms` (for its machine's saves); and `wake`: its phases in
    milliseconds, None if it waited for none.
    """
    events: tuple[Event, ...] | None = None
    """Its output, where one instruction was asked for; lists leave it out."""


class Snapshot(Record):
    """A saved state of a machine that is kept."""

    generation: int
    line: int = 0
    """A rollback, and a recovery from an older snapshot, begin a new line."""
    parent: int | None = None
    created_at: datetime | None = None
    seq: int | None = None
    """The last instruction that is finished in it."""
    position: int | None = None
    quiescent: bool = True
    """Whether no instruction was running: only such a state can be rolled back to, or forked."""
    image_bytes: int | None = None
    stored_bytes: int | None = None
    pinned: bool = False
    """Whether it is kept for ever."""
    current: bool = False
    """Whether it is what the machine would wake from."""
    set_aside: bool = False
    """Whether a recovery could not use it."""


class SnapshotList(Record):
    """The answer to a list of snapshots."""

    snapshots: tuple[Snapshot, ...]


class Rollback(Record):
    """What a rollback did."""

    generation: int | None = None
    """What the machine goes on from; None is its beginning."""
    line: int = 0
    undo: Point | None = None
    """What it was: rolling back to this takes the rollback back."""
    left_behind: tuple[int, ...] = ()
    """Instructions whose effects are undone."""
    replayed: tuple[int, ...] = ()
    """Instructions that run again to reach the point."""


class Recovered(Record):
    """How a parked machine was brought back."""

    how: str
    state: str | None = None
    """Of the machine now."""
    generation: int | None = None
    """What it was brought back from; None is its beginning."""
    line: int = 0
    undone: int | None = None
    """The instruction that was skipped."""
    left_behind: tuple[int, ...] = ()
    """Instructions whose effects are undone."""


class Crashed(Record):
    """The answer to `debug crash`."""

    crashed: bool


class MachineList(Record):
    """A page of a list."""

    machines: tuple[MachineInfo, ...]
    next_cursor: str | None = None
    """For the next page; None on the last."""


class History(Record):
    """One page of a machine's history, newest first."""

    instructions: tuple[Instruction, ...]
    cursor: str | None = Field(default=None, validation_alias="next_cursor")
    """For the next page; None on the last."""


class NewMachine(Record):
    """The answer to a new machine."""

    machine_name: str


class Forks(Record):
    """The answer to a fork."""

    machines: tuple[str, ...]
    generation: int | None = None
    """The snapshot that they begin with."""
    lacks: tuple[int, ...] = ()
    """Instructions that are not in it, since they ran or waited at that moment."""


class Account(Record):
    """The answer to `whoami`."""

    account: str


class Started(Record):
    """The answer to code that is to run in the background; without a number the machine was busy."""

    seq: int | None = Field(default=None, validation_alias="instruction_seq")
    machine: str | None = None

    @property
    def accepted_seq(self) -> int:
        """The number that it was given. Raises `MachineBusy` if there is none."""
        if self.seq is None:
            raise MachineBusy(
                "The machine is running another instruction.",
                hint="Pass `queue=True` to wait for it, or `interrupt=True` to end it.",
            )
        return self.seq


class Interrupted(Record):
    """The answer to an interrupt."""

    interrupted: bool = True


class RunAnswer(Record):
    """The answer to code that ran, in one piece."""

    instruction_seq: int
    result: dict[str, Any]
    machine_name: str | None = Field(default=None, validation_alias="machine")
    events: tuple[dict[str, Any], ...] = ()
    notices: tuple[Notice, ...] = ()
    timings: dict[str, Any] = Field(default_factory=dict)
