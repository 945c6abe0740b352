"""The seam between machines and what runs them: sandboxes and the conversation with the guest inside."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from torpor_worker.command import CommandInput, CommandSignal, CommandSpec
from torpor_worker.files import FileTransfer, FileWork
from torpor_worker.stdin import Stdin
from torpor_worker.survivors import ProcessFacts, Survivor

OutputKind = Literal["stdout", "stderr", "display"]


class SandboxError(Exception):
    """A sandbox command failed, or took longer than it may; the message says which and what it printed."""


class RuntimeUnavailable(SandboxError):
    """What an image needs to be restored is not on this host, and cannot be had now; the message says what it is."""


class SandboxDied(SandboxError):
    """The sandbox, or the interpreter in it, is gone; nothing more will come from it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one machine may use."""

    memory_bytes: int
    processes: int = 256
    cpu_shares: float = 1.0


@dataclass(frozen=True, slots=True)
class Output:
    """A piece of output. `seq` is None for what came before the first instruction."""

    seq: int | None
    kind: OutputKind
    data: bytes
    """Raw bytes of a stream, or the UTF-8 JSON of a MIME bundle (`{"data": {...}, "metadata": {...}}`)."""
    background: bool
    """True if it came when no instruction was running."""
    offset: int | None = None
    """How many bytes this guest had said under this seq before; None from a guest that does not count."""


@dataclass(frozen=True, slots=True)
class Result:
    """How an instruction ended, as the guest saw it. Exactly one of `error` and the value form is meant."""

    seq: int
    value: str | None = None
    """The `repr` of the last expression, None for a statement."""
    data: dict[str, Any] = field(default_factory=dict)
    """MIME bundle of the value: MIME type to text (binary types in base64)."""
    error: dict[str, Any] | None = None
    """`{"name": str, "message": str, "traceback": [line, ...]}`, or None."""
    runtime_ms: int = 0


@dataclass(frozen=True, slots=True)
class InterpreterDied:
    """The user's interpreter ended; the sandbox is of no more use. `seq` ran at that moment, if any did."""

    seq: int | None
    reason: str
    """For people: `exit status 3`, `killed by signal 11 (SIGSEGV)`, `used more than its 1024 MiB of memory`."""


@dataclass(frozen=True, slots=True)
class GuestNotice:
    """Something the guest repaired or refused, for the machine's notices. `code` is one of a closed list."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class SandboxLost:
    """The sandbox itself is gone (its process ended, its memory limit was exceeded, it stopped answering)."""

    reason: str


@dataclass(frozen=True, slots=True)
class CommandOutput:
    """A piece of a command's output."""

    seq: int
    kind: OutputKind
    data: bytes
    offset: int
    """How many bytes the guest had said under this seq before."""
    skipped_bytes: int = 0
    """So many bytes were said that nobody keeps, and that are only counted; then there is no data."""

    @property
    def end(self) -> int:
        """The offset behind it."""
        return self.offset + len(self.data) + self.skipped_bytes


@dataclass(frozen=True, slots=True)
class CommandEnded:
    """A command has ended, with an exit code or by a signal."""

    seq: int
    exit_code: int | None
    signal: int | None
    runtime_ms: int
    reason: str | None = None
    """For people, if the machine itself has killed it."""


@dataclass(frozen=True, slots=True)
class PackagesWanted:
    """Something in the sandbox asks for packages; it is said again to each host until that is answered."""

    number: int
    """Names the ask in this sandbox."""
    seq: int
    """What asks: a command, or what the interpreter ran."""
    name: str
    """The same whenever this `seq` asks for this; what is asked for is awaited in a file of this name."""
    request: Mapping[str, Any]


Event = Output | Result | InterpreterDied | GuestNotice | SandboxLost | CommandOutput | CommandEnded | PackagesWanted


@dataclass(frozen=True, slots=True)
class GuestState:
    """What the guest says of itself on attaching and in answer to a ping."""

    last_position: int
    """The highest log position received, -1 before the first."""
    running: int | None
    """The seq that is running."""
    background: bool
    """Whether threads, children or tasks of the user's are alive."""
    running_seconds: float = 0.0
    """For how long `running` has run, by the sandbox's clock, which does not stop while it is frozen."""
    applying: bool | None = field(default=None, compare=False)
    """Whether a change of files is being applied; None from a guest that knows of no files."""
    commands: Mapping[int, float] | None = field(default=None, compare=False)
    """For how long each of the commands that run has run, by seq; None from a guest that knows of no commands."""
    answered_seconds: float = field(default=0.0, compare=False)
    """On attaching: how long it took to answer the first frame."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What could stand in place of the characters from `start` to `end` of some code."""

    matches: tuple[str, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Adopted:
    """A survivor that answers."""

    sandbox: Sandbox
    state: GuestState
    was_frozen: bool
    """Whether it had to be resumed."""


class Sandbox(Protocol):
    """One sandbox that holds one machine's processes, and the conversation with its guest.

    Every method may raise `SandboxError`. After `SandboxDied`, or an `InterpreterDied` or `SandboxLost` event, only
    `destroy` is of use. Bytes that come out of the sandbox are hostile: what breaks the protocol is `SandboxLost`.
    """

    @property
    def id(self) -> str:
        """The container id."""
        ...

    @property
    def series(self) -> str:
        """The runtime series that it runs on, and that its images can be restored on."""
        ...

    async def assign(self, machine: str, limits: Limits) -> None:
        """Give a sandbox that was made in advance to a machine, under its limits from now on."""
        ...

    async def limit(self, limits: Limits) -> None:
        """Put it under other limits from now on. What it uses already should be within them."""
        ...

    async def execute(self, position: int, seq: int, code: str, *, replaying: bool, stdin: Stdin | None = None) -> None:
        """Send an instruction. A position that the guest has already seen is ignored by it."""
        ...

    async def feed(self, position: int, seq: int, piece: CommandInput) -> None:
        """Give an instruction more to read; nothing happens if it does not run, or its input is closed."""
        ...

    async def reseed(self, position: int, seed: bytes) -> None:
        """Give the guest fresh randomness: 32 bytes, mixed into `random`, NumPy's legacy generator and OpenSSL."""
        ...

    async def interrupt(self, seq: int, *, step: Literal["interrupt", "again", "kill"]) -> None:
        """Stop what `seq` runs, if it still runs: SIGCONT + SIGINT, SIGINT again, or SIGKILL of the interpreter."""
        ...

    async def work_on_files(self, work: FileWork) -> FileTransfer:
        """Begin some work on the user's files. Raises `FileRefused` if this guest cannot, as it is too old."""
        ...

    async def apply_change(self, position: int, transfer: FileTransfer) -> None:
        """Have a change that is prepared made true, behind all that was sent; its transfer says how that ended."""

    async def command(self, position: int, seq: int, spec: CommandSpec, output_limit_bytes: int) -> None:
        """Start a command. Of its output the guest says so much, and counts the rest."""
        ...

    async def feed_command(self, position: int, seq: int, piece: CommandInput) -> None:
        """Give a command input; nothing happens if it does not run, or its input is closed."""
        ...

    async def signal_command(self, position: int | None, seq: int, signal: CommandSignal) -> None:
        """Send a command a signal; nothing happens if it does not run. Without a position it is not of the log."""
        ...

    async def answer_packages(self, number: int, *, refused: str | None) -> None:
        """Say of an ask for packages why it is refused; None: what was asked for was handed in before, or is soon."""
        ...

    async def rehearse(self) -> None:
        """Have a fresh interpreter run something of which nothing stays, so that its first instruction is quick.

        What was restored has its memory mapped page by page as it is touched; this touches what an instruction needs.
        """
        ...

    async def complete(self, code: str, cursor: int) -> Completion:
        """What could follow behind `cursor` characters of `code`; nothing while an instruction runs.

        It changes nothing, takes some seconds at most, and finds nothing rather than fail.
        """
        ...

    async def ping(self) -> GuestState:
        """Ask the guest for its state; answered whatever user code does. Raises `SandboxError` after 5 s."""
        ...

    async def receive(self) -> Event:
        """The next event, in order. After `SandboxLost` it raises `SandboxDied`."""
        ...

    async def acknowledge(self) -> None:
        """Say that every event received so far is durable, so that the guest may forget it."""
        ...

    async def pause(self) -> None:
        """Freeze every process in it; the guest's clock of an instruction must be stopped by the caller."""
        ...

    async def resume(self) -> None:
        """Let it run on after `pause`."""
        ...

    async def checkpoint(self, image: Path) -> None:
        """Write an image into the new folder `image`, its sizes checked, and go on as before.

        It is not flushed to the disk, for which every instruction of the host's would wait: whoever trusts it after a
        power cut does that.

        What was acknowledged before is not said again by a sandbox restored from it.
        """
        ...

    async def remember(self, facts: ProcessFacts) -> None:
        """Write down what a successor of this worker must know to take it over; `destroy` takes it back first."""
        ...

    def memory_bytes(self) -> int:
        """What its memory file holds now, in bytes; 0 when it is gone."""
        ...

    async def crash(self) -> None:
        """SIGKILL it: it ends as if something had gone wrong, and its receiver hears of it as of any other death."""
        ...

    async def destroy(self) -> None:
        """Kill and remove every trace of it; may be called at any time, twice, and after its death."""
        ...


class SandboxHost(Protocol):
    """Makes sandboxes on this host: new ones on one runtime, restored ones on that of their image."""

    @property
    def series(self) -> str:
        """The runtime series of new sandboxes."""
        ...

    @property
    def version(self) -> str:
        """Names what a new sandbox begins with: another runtime or other code of the guest's is another version."""
        ...

    async def start(
        self, machine: str, limits: Limits, preload: Sequence[str] = (), series: str | None = None
    ) -> Sandbox:
        """A new sandbox with an empty interpreter, attached and ready for frames.

        `series` is the runtime's, which `have` was called for; None: the one for new machines. The modules of `preload`
        are imported, and not in the namespace; one that cannot be is `SandboxDied`.
        """
        ...

    def runtime_facts(self, series: str) -> dict[str, str]:
        """What tells a runtime that is here from every other, for manifests."""
        ...

    async def have(self, series: str) -> None:
        """See to it that images of a runtime series can be restored here, however long that takes.

        Raises `RuntimeUnavailable`.
        """
        ...

    async def restore(
        self, machine: str, image: Path, limits: Limits, series: str | None = None, *, waited_for: bool = True
    ) -> tuple[Sandbox, GuestState]:
        """A sandbox restored from `image`, attached. Raises `SandboxError`; nothing is left behind then.

        `series` is the image's, which `have` was called for; None: that of new sandboxes. If somebody waits for it, a
        spare one is taken, unless the series is another.
        """
        ...

    @property
    def spares(self) -> int:
        """How many sandboxes wait for an image to be restored into them."""
        ...

    @property
    def spare_bytes(self) -> int:
        """What these use."""
        ...

    async def add_spare(self) -> None:
        """Make one more, and remove those that have died. Raises `SandboxError`."""
        ...

    async def drop_spare(self) -> bool:
        """Remove one; False if there is none."""
        ...

    async def survivors(self) -> list[Survivor]:
        """Sandboxes of an earlier life of this host's data folder that live, and of which enough is known."""
        ...

    async def adopt(self, survivor: Survivor, limits: Limits) -> Adopted:
        """Attach to one. Raises `SandboxError`; then it is removed."""
        ...

    async def dismiss(self, survivor: Survivor) -> None:
        """Remove one that was kept and that nobody wants."""
        ...

    async def remove_leftovers(self, keep: Collection[str] = ()) -> int:
        """Remove sandboxes of an earlier life of this host's data folder; how many there were.

        The survivors with the ids of `keep` stay, until they are adopted, dismissed, or removed by `close`.
        """
        ...

    async def close(self) -> None:
        """Remove every sandbox made here, and every survivor that was kept."""
        ...
