"""What is written down of an awake machine's process, so that the worker's successor can take it over."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the output goes of the instruction that was not begun in this process but came with its snapshot."""

    seq: int
    attempt: int
    ahead_bytes: int
    """How many bytes more the ledger has of this attempt than the guest counts."""


@dataclass(frozen=True, slots=True)
class Clock:
    """An instruction's used time at a moment when the guest said that it had run for `guest_seconds`."""

    seq: int
    used_seconds: float
    guest_seconds: float


@dataclass(frozen=True, slots=True)
class CommandClock:
    """The same of a command; and where its output goes."""

    seq: int
    used_seconds: float
    guest_seconds: float
    ahead_bytes: int = 0
    """How many bytes more the ledger has of what it said than the guest counts."""


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """All that cannot be had from the ledger or the guest. Written when a process is served, and seldom again."""

    machine: str
    epoch: int
    line: int
    position: int
    """The highest position that was applied, or left out for good, before it was served: what is above was sent to it
    by its worker, and begun from the start."""
    origin: Origin | None = None
    clock: Clock | None = None
    """Only of an instruction that came with the snapshot, or whose sandbox was frozen."""
    commands: tuple[CommandClock, ...] = ()
    """The same of commands."""

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> ProcessFacts:
        """The inverse of `to_json`. Raises `ValueError`, `KeyError` or `TypeError` if it is anything else."""
        if fields["format"] != FORMAT:
            raise ValueError("of another format")
        origin, clock = fields["origin"], fields["clock"]
        return cls(
            machine=str(fields["machine"]),
            epoch=int(fields["epoch"]),
            line=int(fields["line"]),
            position=int(fields["position"]),
            origin=None if origin is None else Origin(**origin),
            clock=None if clock is None else Clock(**clock),
            commands=tuple(CommandClock(**each) for each in fields.get("commands", ())),
        )


@dataclass(frozen=True, slots=True)
class Survivor:
    """A sandbox that has outlived its worker, and what that wrote down of it."""

    id: str
    facts: ProcessFacts
