"""What to do about an error, in commands: the server's hints speak of requests."""

from __future__ import annotations

from .._errors import (
    InstructionNotFound,
    MachineBusy,
    MachineNotFound,
    MachineParked,
    SnapshotNotFound,
    TorporError,
    Unauthorized,
)

_HINTS: dict[type[TorporError], str] = {
    MachineNotFound: "`torpor ls` lists your machines; `torpor new --name NAME` makes one of this name.",
    MachineBusy: "`torpor interrupt MACHINE` ends what runs there; `torpor run --queue` waits for it.",
    MachineParked: "`torpor recover MACHINE --how retry` tries again; `torpor recover --help` has the other ways out.",
    InstructionNotFound: "`torpor log MACHINE` lists what was run on it.",
    SnapshotNotFound: "`torpor snapshots MACHINE` lists those that are kept.",
    Unauthorized: "`torpor login` asks for a key and remembers it; TORPOR_API_KEY goes before that.",
}


def hint_for(error: TorporError) -> str | None:
    """A sentence for whoever typed a command."""
    return _HINTS.get(type(error), error.hint)
