"""An instruction or a command that runs: its clock, and the steps that end it when it must end."""

from __future__ import annotations

from typing import Literal, cast

from torpor_worker.config import WorkerConfig
from torpor_worker.ledger import EndedBy, Entry, EntryKind

Step = Literal["interrupt", "again", "kill", "remove", "terminate"]
Ladder = tuple[tuple[Step, float], ...]
"""Steps, and how long after the one before each is taken, in seconds."""


def command_ladder(config: WorkerConfig) -> Ladder:
    """How a command is ended whose time is over."""
    # Many processes may have to go: longer than for an interpreter.
    return (("terminate", 0.0), ("kill", config.kill_seconds), ("remove", 4 * config.remove_seconds))


class Running:
    """One attempt at an instruction or a command. Its clock counts host time from frame to end, not while it is paused.

    All times are of one monotonic clock, in seconds, and are given by the caller: nothing here waits.
    """

    __slots__ = (
        "_ladder",
        "_limit_seconds",
        "_since",
        "_step_used",
        "_used",
        "attempt",
        "ended_by",
        "entry",
        "held_up_seconds",
        "seq",
        "steps",
    )

    def __init__(
        self,
        entry: Entry,
        attempt: int,
        config: WorkerConfig,
        *,
        used_seconds: float = 0.0,
        ladder: Ladder | None = None,
    ) -> None:
        if entry.seq is None:
            raise ValueError(f"entry {entry.id} is no instruction")
        self.entry = entry
        self.seq = entry.seq
        self.attempt = attempt
        self.ended_by: EndedBy | None = None
        self.steps: list[Step] = []
        self.held_up_seconds = 0.0
        """For how long it waited for saves of its own machine."""
        unlimited = entry.kind is EntryKind.COMMAND and entry.timeout_seconds == 0
        self._limit_seconds = float("inf") if unlimited else entry.timeout_seconds
        self._used = used_seconds
        self._since: float | None = None
        self._step_used = 0.0
        """How long it had run when the last step was taken, or the first was wanted."""
        self._ladder = ladder or (
            ("interrupt", 0.0),
            ("again", config.interrupt_again_seconds),
            ("kill", config.kill_seconds - config.interrupt_again_seconds),
            ("remove", config.remove_seconds - config.kill_seconds),
        )

    def start(self, now: float) -> None:
        """Let the clock run (again)."""
        if self._since is None:
            self._since = now

    def pause(self, now: float) -> None:
        """Stop the clock."""
        self._used = self.used_seconds(now)
        self._since = None

    def used_seconds(self, now: float) -> float:
        """How long it has run."""
        return self._used + (0.0 if self._since is None else now - self._since)

    def stop(self, reason: EndedBy, now: float) -> None:
        """Begin to end it; the first reason stays."""
        if self.ended_by is None:
            self.ended_by = reason
            self._step_used = self.used_seconds(now)

    def due(self, now: float) -> Step | None:
        """The step that must be taken now, noted as taken; begins with the time-out by itself."""
        used = self.used_seconds(now)
        if self.ended_by is None:
            if used < self._limit_seconds:
                return None
            self.stop(EndedBy.TIMEOUT, now)
        if len(self.steps) == len(self._ladder):
            return None
        step, after_seconds = self._ladder[len(self.steps)]
        # Each waits for the one before: a host that stood still must not take them all at once.
        if used - self._step_used < after_seconds:
            return None
        self._step_used = used
        self.steps.append(step)
        return step

    def due_at(self, now: float) -> float:
        """When `due` has something to say, if nothing changes."""
        used = self.used_seconds(now)
        if self.ended_by is None:
            return now + self._limit_seconds - used
        index = min(len(self.steps), len(self._ladder) - 1)
        return now + self._step_used + self._ladder[index][1] - used

    @property
    def step_names(self) -> list[str]:
        """Steps taken, for the result's detail."""
        return cast("list[str]", list(self.steps))
