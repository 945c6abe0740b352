"""The seam between a worker and the truth: who may run a machine, what it was told, and what it has answered.

Every change is conditional. A call that names a `Hold` whose epoch has passed raises `Fenced` and changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from torpor_worker.stdin import Stdin


class Fenced(Exception):
    """The machine has changed hands, or was deleted: stop, and let go of its process."""


class HeadMoved(Exception):
    """Somebody committed another snapshot first; this one is garbage."""


class EntryKind(StrEnum):
    """What an entry of a machine's log does."""

    EXECUTE = "execute"
    RESEED = "reseed"
    COMMAND = "command"
    COMMAND_INPUT = "command_input"
    """Input for a command that was started."""
    COMMAND_SIGNAL = "command_signal"
    FILE = "file"
    """A change of files. It has a position, and is finished, from the beginning."""
    INPUT = "input"
    """Something more to read for an instruction that runs."""

    @property
    def has_seq(self) -> bool:
        """Whether it runs something that has an end of its own: an instruction or a command."""
        return self in {EntryKind.EXECUTE, EntryKind.COMMAND}


class Recovery(StrEnum):
    """What becomes of what a machine did since its last save, when its process was lost."""

    REPLAY = "replay"
    """It is executed again."""
    ROLLBACK = "rollback"
    """It is left behind, as by a rollback: nothing is executed twice."""


class EndedBy(StrEnum):
    """Why an instruction that ended must not be run again in a replay."""

    TIMEOUT = "timeout"
    INTERRUPT = "interrupt"
    SIGNAL = "signal"
    """Of a command, whoever sent it."""


class Durability(StrEnum):
    """When a machine's results are acknowledged."""

    INTERVAL = "interval"
    """Once they are in the log: after a crash what no save has is executed again."""
    INSTRUCTION = "instruction"
    """Once a save that contains them is committed: after a crash nothing is executed again."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a machine's log."""

    id: int
    """Order of acceptance, over all machines."""
    kind: EntryKind
    seq: int | None
    """For an instruction or a command, counted from 0 per machine."""
    position: int | None
    """The order of effect, dense per machine from 0; None until started."""
    attempt: int
    """How often it was handed to a guest for its first result; 0 until started."""
    timeout_seconds: float
    """Of a command, 0: it has none."""
    code: str = ""
    """Of what concerns a command, and of input, its text; see `torpor_worker.command`."""
    seed: bytes = b""
    stdin: Stdin | None = None
    """Of an instruction: what it is given to read; None: nothing."""
    result: InstructionResult | None = None
    undone: bool = False
    """It killed its process: answered with an error, and never replayed."""
    ended_by: EndedBy | None = None
    expired: bool = False
    """Its code and result are not kept any more: it cannot be replayed."""
    background: bool = False
    """Of a command: nobody waits for it, and it sleeps with its machine."""
    target: int | None = None
    """Of input or a signal: the seq of the instruction or the command that it is for."""
    ended_behind: int | None = None
    """The highest position that its machine had started when this ended; what came later came after its end. None: it
    has not ended, or nobody has written that down."""
    body: str | None = None
    """Of a change of files: the key of what it writes."""
    ended_here: bool = True
    """Its end belongs to what its machine has behind it; False: a rollback went back to before it."""

    @property
    def is_awaited(self) -> bool:
        """Whether its machine stays awake until it has ended."""
        return self.kind.has_seq and not self.background


@dataclass(frozen=True, slots=True)
class Exit:
    """How a command ended: one of the two."""

    code: int | None
    signal: int | None


@dataclass(frozen=True, slots=True)
class InstructionResult:
    """What is committed, and then answered, for an instruction; the first one committed of a seq stays."""

    value: str | None
    data: dict[str, Any]
    error: str | None
    """One text for part 1 of the API: `Name: message`; None for the value form."""
    error_detail: dict[str, Any] | None
    """`name`, `message`, `traceback`, and `steps` (of a time-out or interrupt: `["interrupt", "again", ...]`)."""
    runtime_ms: int
    wake_ms: dict[str, float] | None = None
    """Milliseconds of each phase of the wake (see `wake_timer`), if the machine was woken for it."""
    exit: Exit | None = None
    """Of a command that was started and has ended."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt at an instruction ended, to be committed together with the snapshot that contains it."""

    seq: int
    attempt: int
    result: InstructionResult
    ended_by: EndedBy | None
    waited_for_save_ms: int


@dataclass(frozen=True, slots=True)
class RunningCommand:
    """A command that runs in a snapshot."""

    seq: int
    attempt: int
    used_seconds: float
    """Of its time-out, the part already used."""
    output_offset: int
    """Bytes that the ledger had been given of its output."""
    said_bytes: int
    """How many its guest had said by then: what it says again lies behind. Where it has run on another machine, or
    longer than its log has it, this is not the same."""
    background: bool
    again: bool = False
    """It had its end already: a rollback went back to before it."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A committed snapshot of a machine."""

    generation: int
    line: int
    parent: int | None
    position: int
    """The highest position in it, -1 for none."""
    running_seq: int | None
    """The instruction in the middle of which it was taken; None if quiescent."""
    running_used_seconds: float
    """Of that instruction's time-out, the part already used."""
    output_offset: int
    """Bytes of that instruction's output that came before it."""
    manifest_key: str
    manifest_sha256: str
    stored_bytes: int
    image_bytes: int
    series: str
    created_at: datetime | None = None
    pinned: bool = False
    """It is kept for ever."""
    base: bool = False
    """A fork's beginning: no log lies before it, so that recovery cannot go further back."""
    set_aside: bool = False
    """A recovery could not use it."""
    packs: tuple[str, ...] = ()
    """Keys of the packs that it needs."""
    running_attempt: int = 1
    """The attempt at the instruction that runs in it; later ones began from here."""
    running_said_bytes: int | None = None
    """How many bytes its guest had said of that instruction by `output_offset`; None from one that does not count."""
    commands: tuple[RunningCommand, ...] = ()
    """Those that run in it."""

    @property
    def quiescent(self) -> bool:
        """Whether nothing was running that anybody waits for: no instruction, and no command but in the background."""
        return self.running_seq is None and all(each.background for each in self.commands)


@dataclass(frozen=True, slots=True)
class Hold:
    """A session's right to run one machine: everything a worker needs to bring it back."""

    machine: str
    account: str
    epoch: int
    line: int
    head: Snapshot | None
    memory_bytes: int
    idle_seconds: float | None
    """None: it stays awake."""
    tags: dict[str, str]
    template: str | None = None
    """What it starts from while it has no snapshot; None: an empty interpreter."""
    durability: Durability = Durability.INTERVAL
    recovery: Recovery = Recovery.REPLAY
    replay_seconds: float = 300.0
    """How much running time a recovery may execute again."""
    asked_position: int = -1
    """The last position that a rollback or a fork has asked to execute again, if it is not in the head: no recovery
    leaves out what lies before it."""
    tries: int = 0
    """How often the present head was brought back after a death, without having lived for a while since."""
    deaths: int = 0
    """How many processes of the present head died before they finished a new entry."""
    rebuilt_from: int | None = None
    """The generation that a rebuild of the ledger made its head: the log before that is not known any more."""


@dataclass(frozen=True, slots=True)
class Forgone:
    """What a recovery leaves behind instead of executing it again."""

    position: int
    """The last one that is kept."""
    seqs: list[int]
    """Of instructions whose effects are lost, as the notice names them."""
    message: str
    """Of the notice `effects_lost`."""
    unfinished: tuple[int, ...] = ()
    """Those of them that were running: they are answered with `answer`, and undone."""
    cut_short: tuple[int, ...] = ()
    """Those that run in the head: they are ended there. Those that have no result yet get `answer`."""
    waiting: tuple[int, ...] = ()
    """Ids of entries that no process was sent and nothing answers: they wait until the machine is back."""
    answer: InstructionResult | None = None


@dataclass(frozen=True, slots=True)
class StoredTemplate:
    """A template in the store: what a machine's first snapshot may share pages with."""

    manifest_key: str
    manifest_sha256: str


@dataclass(frozen=True, slots=True)
class KeptRuntime:
    """A runtime in the store: the key and the SHA-256 of the object that describes it."""

    key: str
    sha256: str


@dataclass(frozen=True, slots=True)
class OutputRecord:
    """A piece of output as stored; `kind` is stdout, stderr or display."""

    kind: str
    data: bytes


class Ledger(Protocol):
    """What a worker asks of the truth. Each method is one transaction, durable when it returns."""

    async def open_session(self, worker: str) -> str:
        """Open this worker's session and take over every machine of a dead one; the session's id.

        A machine taken over keeps its session set: it is to be recovered (see `mine`).
        """
        ...

    async def mine(self) -> list[str]:
        """Machines whose session is this one."""
        ...

    async def waiting(self) -> list[str]:
        """Machines that have unfinished entries and no session: the sweeper's list, oldest first.

        A command in the background that was started sleeps with its machine: it is none of these.
        """
        ...

    async def acquire(self, machine: str) -> Hold | None:
        """Set the session, raise the epoch. None if it is parked, deleted, or held by another live session."""
        ...

    async def settings(self, hold: Hold) -> Hold:
        """The hold with the machine's settings and tags as they are now."""
        ...

    async def ready(self, hold: Hold) -> None:
        """The machine is awake: from now on an entry accepted while it is free is started in the same transaction."""
        ...

    async def behind(self, hold: Hold, position: int) -> list[Entry]:
        """Started entries with a position above `position`, in order; undone ones too, the caller leaves them out."""
        ...

    async def entries(self, hold: Hold, seqs: Collection[int]) -> list[Entry]:
        """Instructions and commands by seq, those that there are, in order of position."""
        ...

    async def unfinished(self, hold: Hold) -> list[Entry]:
        """What was started and has no end yet, in order of position."""
        ...

    async def log_change(
        self, hold: Hold, text: str, body: str | None, body_bytes: int, *, behind: int
    ) -> Entry | None:
        """Write a change of files into the log, with a position and finished.

        None, and no change, if something that was not rolled back was started behind the position `behind`: that is to
        be sent first.
        """
        ...

    async def knows_change(self, hold: Hold, text: str) -> bool:
        """Whether a change of files with this text is in the log, was made, and was not left behind."""
        ...

    async def undo_change(self, hold: Hold, position: int) -> None:
        """A change of files could not be made, and is never made again."""
        ...

    async def start_next(self, hold: Hold, *, beside: bool = False) -> Entry | None:
        """Give the oldest accepted entry a position and mark it started (attempt 1). None if there is none.

        `beside`: an instruction runs, so that only what is none is started. Otherwise, if a started instruction is
        unfinished, that one is returned, its attempt as it is.
        """
        ...

    async def count_attempt(self, hold: Hold, seq: int, output_offset: int, *, counted: bool = False) -> int:
        """Begin a new attempt at what is unfinished and was started before; its number.

        The new attempt inherits the output records before `output_offset`. `counted`: that is an offset in all that
        was given, stored or not.
        """
        ...

    async def append_output(
        self,
        hold: Hold,
        seq: int,
        attempt: int,
        records: list[OutputRecord],
        *,
        background: bool,
        skipped_bytes: int = 0,
    ) -> None:
        """Store output, in order, up to the output limit; what is over it is counted, and told at its end.

        Behind the records came so many bytes more that are only to be counted.
        """
        ...

    async def output_offset(self, hold: Hold, seq: int, attempt: int) -> int:
        """Bytes of output stored so far for this attempt."""
        ...

    async def output_given(self, hold: Hold, seq: int, attempt: int) -> int:
        """Bytes of output given so far for this attempt: stored, inherited, or counted beyond the limit."""
        ...

    async def finish(
        self,
        hold: Hold,
        seq: int,
        attempt: int,
        result: InstructionResult,
        *,
        undone: bool = False,
        ended_by: EndedBy | None = None,
        output: list[OutputRecord] | None = None,
        waited_for_save_ms: int = 0,
    ) -> None:
        """Commit a result, and in the same step what output is left. If the seq has one already, that stays.

        `waited_for_save_ms`: for how long it was held up by saves of its own machine.
        """
        ...

    async def note_replay(self, hold: Hold, seq: int) -> None:
        """Remember that a finished instruction was executed again."""
        ...

    async def undo(self, hold: Hold, seq: int, notice: str | None = None) -> None:
        """Mark a finished instruction as undone: it killed its process later, and is never replayed.

        A notice `undone` is left in the same step.
        """
        ...

    async def allot_save(self, hold: Hold) -> tuple[int, str]:
        """A new generation number and the key of its manifest: that and its pack's are known before they are put."""
        ...

    async def facts(self, hold: Hold, running_seq: int | None, commands: Collection[int] = ()) -> dict[str, Any]:
        """What a manifest is to say of the machine as it is now, beside what the hold has: for a rebuild of the ledger.

        With `running`, the code and time-out of the instruction `running_seq`, if one runs in the snapshot, and with
        `commands` the same and more of these.
        """
        ...

    async def commit_snapshot(
        self, hold: Hold, expected_head: int | None, snapshot: Snapshot, ending: Ending | None = None
    ) -> None:
        """Make it the head if the head is still generation `expected_head`. Idempotent. Raises `HeadMoved`.

        With `ending`, the result of the instruction that ended in it is committed in the same step, as by `finish`.

        So it does if a pack that the snapshot needs was condemned: it builds on what is gone.

        It may condemn others of the machine, but never the two newest quiescent ones, nor any quiescent one that is
        newer than these; one that is not quiescent goes as soon as there is a newer one.
        """
        ...

    async def generations(self, hold: Hold) -> list[Snapshot]:
        """Snapshots that are not condemned, newest first."""
        ...

    async def go_back(self, hold: Hold, to: int | None, notice: str | None = None) -> Hold:
        """Set the head aside for an older generation (None: the empty interpreter), on a new line. The new hold.

        What was counted about the old head is forgotten. A notice `set_aside` is left in the same step.
        """
        ...

    async def forgo(self, hold: Hold, forgone: Forgone) -> Hold:
        """Leave behind what was started behind a position: the machine goes on on a new line without it. The new hold.

        The head stays. Changes of files behind it are carried over: they are started again on the new line, in their
        order. A started entry without a result that is not the one named is accepted again, as if it had
        never been started. A notice `effects_lost` is left in the same step.
        """
        ...

    async def count_try(self, hold: Hold) -> None:
        """The head is about to be brought back after a death."""
        ...

    async def count_death(self, hold: Hold, deaths: int) -> None:
        """So many processes of the head have died before they finished a new entry."""
        ...

    async def clear_tries(self, hold: Hold, *, deaths: bool) -> None:
        """Its process has lived for a while, or (`deaths`) finished a new entry: earlier tries say nothing any more."""
        ...

    async def release(self, hold: Hold, head: int, *, draining: bool = False) -> bool:
        """Put it to sleep: clear the session if the head is `head` and nothing lies behind it.

        Nothing: no unfinished entry, but for commands in the background that run in the head, and no position above the
        head's; while draining, entries that are accepted but not started, and all that runs in the head, may be there.
        False, and no change, otherwise.
        """
        ...

    async def park(self, hold: Hold, reason: str, seq: int | None = None) -> None:
        """Give up on it: clear the session and remember why, and which instruction is to blame if that is known.

        Its entries that are unfinished get an error.
        """
        ...

    async def stored_template(self, name: str, version: str) -> StoredTemplate | None:
        """Where the store has this version of a template; None if it does not."""
        ...

    async def allot_template(self, name: str, version: str) -> str:
        """The key under which a template's manifest will be stored, known before it is put; earlier ones may go."""
        ...

    async def commit_template(self, name: str, stored: StoredTemplate, stored_bytes: int) -> None:
        """It is stored under the key that was allotted last: from now on snapshots may refer to its pack."""
        ...

    async def quarantined(self) -> dict[str, str]:
        """Runtime series whose machines are not woken for instructions, and why."""
        ...

    async def notice(self, hold: Hold, code: str, message: str, seqs: list[int]) -> None:
        """Leave a notice for the machine's users. One of the same code that is still unread is replaced."""
        ...

    async def clear_notices(self, hold: Hold, *codes: str) -> None:
        """Forget notices: those of these codes, or all."""
        ...

    async def event(self, machine: str, action: str, **fields: Any) -> None:
        """Write to the machine's history of events (woke, slept, recovered, died...), for operators."""
        ...
