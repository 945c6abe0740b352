"""An image of a sandbox that is none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torpor_worker.fake_commands import FakeCommand
from torpor_worker.fake_files import Files
from torpor_worker.sandbox import Event


@dataclass(slots=True)
class FakeImage:
    """All that survives a checkpoint."""

    names: dict[str, Any] = field(default_factory=dict)
    preloaded: tuple[str, ...] = ()
    said: list[Event] = field(default_factory=list)
    """What is not acknowledged, and said again after a restore."""
    last_position: int = -1
    last_seq: int | None = None
    said_bytes: int = 0
    """Under the last seq."""
    running: int | None = None
    program: dict[str, Any] | None = None
    background: bool = False
    files: Files = field(default_factory=dict)
    commands: dict[int, FakeCommand] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    """What the instruction that runs has not read yet."""
    reads_on: bool = False
    """Whether it may be given more."""
    doom: str | None = None
    """A thread that will end the process: it does so again after every restore."""
    doom_seconds: float = 0.0
