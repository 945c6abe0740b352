"""What E2B knows of sandboxes and snapshots, with the same names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, Generic, TypeVar

from .._async_machine import AsyncMachine
from .._machine import Machine
from .._models import MachineInfo, Snapshot
from .e2b_errors import InvalidArgumentException, SandboxException

METADATA = "e2b-"
"""What tags that are metadata of E2B's begin with."""
TEMPLATES = {"base": "python", "code-interpreter-v1": "python", "python": "python", "data": "data"}
"""Templates of E2B's and Torpor's own, and what they are here."""
RESTING = ("asleep", "parked")
"""States of a machine that E2B calls paused."""

M = TypeVar("M", Machine, AsyncMachine)
T = TypeVar("T")


class SandboxState(str, Enum):
    """Whether it is awake."""

    PAUSED = "paused"
    RUNNING = "running"

    def __str__(self) -> str:
        return self.value


@dataclass
class SandboxInfo:
    """A sandbox, as far as there is such a thing here: what is None is not known."""

    sandbox_id: str
    sandbox_domain: str | None
    template_id: str
    name: str | None
    """The machine's alias."""
    metadata: dict[str, str]
    started_at: datetime
    end_at: datetime | None
    """Always None: it does not end by itself."""
    state: SandboxState
    cpu_count: int | None
    memory_mb: int | None
    envd_version: str | None
    allow_internet_access: bool | None = False
    network: Any = None
    lifecycle: Any = None
    volume_mounts: list[dict[str, str]] = field(default_factory=list)
    envd_unresponsive_at_pause: bool | None = None


@dataclass
class SandboxQuery:
    """Which sandboxes are wanted."""

    metadata: dict[str, str] | None = None
    state: list[SandboxState] | None = None
    started_after: datetime | None = None
    """Local time if it names no zone."""
    template: str | None = None


@dataclass
class SnapshotInfo:
    """A snapshot that is kept. `Sandbox.create(snapshot_id)` makes a sandbox that goes on from it."""

    snapshot_id: str
    """The machine's name, a colon, and the snapshot's generation."""
    names: list[str] = field(default_factory=list)
    """Always empty: snapshots have no names."""


@dataclass(frozen=True)
class SavedState:
    """A snapshot of a machine."""

    machine: str
    generation: int

    @property
    def info(self) -> SnapshotInfo:
        """The snapshot in E2B's form."""
        return SnapshotInfo(f"{self.machine}:{self.generation}")


class SandboxBase(Generic[M]):
    """What is the same in both classes."""

    default_template = "python"

    def __init__(self, machine: M) -> None:
        self._machine: M = machine

    @property
    def machine(self) -> M:
        """The machine, with all that Torpor can do with it."""
        return self._machine

    @property
    def sandbox_id(self) -> str:
        """The machine's name."""
        return self._machine.name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.sandbox_id!r})"


class PagesBase(Generic[T]):
    """Pages of what is asked for once, when the first page is."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._left: list[T] | None = None

    @property
    def has_next(self) -> bool:
        """Whether there is another page."""
        return self._left is None or bool(self._left)

    def _page(self, found: list[T]) -> list[T]:
        page = found[: self._limit]
        self._left = found[len(page) :] if self._limit else []
        return page

    def _check(self) -> None:
        if not self.has_next:
            raise SandboxException("No more items to fetch")


def tags_of(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """Metadata as tags of a machine."""
    return {f"{METADATA}{name}": value for name, value in (metadata or {}).items()}


def origin_of(template: str | None) -> SavedState | str | None:
    """What a machine starts from: a snapshot, or a template. Raises `InvalidArgumentException`."""
    if template is None or template in TEMPLATES:
        return None if template is None else TEMPLATES[template]
    if ":" in template:
        return saved_state(template)
    raise InvalidArgumentException(f"There is no template {template!r} here, but {', '.join(TEMPLATES)}.")


def saved_state(snapshot_id: str) -> SavedState:
    """The snapshot of an id. Raises `InvalidArgumentException`."""
    machine, _, generation = snapshot_id.rpartition(":")
    if not machine or not generation.isdecimal():
        raise InvalidArgumentException(f"{snapshot_id!r} is the id of no snapshot.")
    return SavedState(machine, int(generation))


def info_of(machine: MachineInfo) -> SandboxInfo:
    """What the server knows of a machine in E2B's form."""
    return SandboxInfo(
        sandbox_id=machine.name,
        sandbox_domain=None,
        template_id=machine.template or "",
        name=machine.alias,
        metadata={name[len(METADATA) :]: value for name, value in machine.tags.items() if name.startswith(METADATA)},
        started_at=machine.created_at,
        end_at=None,
        state=SandboxState.PAUSED if machine.state in RESTING else SandboxState.RUNNING,
        cpu_count=None,
        memory_mb=machine.memory_mb,
        envd_version=None,
    )


def chosen(found: Iterable[SandboxInfo], query: SandboxQuery | None, order: str | None) -> list[SandboxInfo]:
    """Those of the sandboxes, newest first, that a query wants. Raises `InvalidArgumentException`."""
    if order not in (None, "asc", "desc"):
        raise InvalidArgumentException(f"Invalid order {order!r}, expected 'asc' or 'desc'")
    wanted = query or SandboxQuery()
    template = wanted.template and TEMPLATES.get(wanted.template, wanted.template)
    after = wanted.started_after and wanted.started_after.astimezone()
    sandboxes = [
        sandbox
        for sandbox in found
        if (wanted.state is None or sandbox.state in wanted.state)
        and (after is None or sandbox.started_at >= after)
        and (template is None or sandbox.template_id == template)
    ]
    return sandboxes[::-1] if order == "asc" else sandboxes


def pinned(machine: str, snapshots: Iterable[Snapshot]) -> list[SnapshotInfo]:
    """Those of a machine's snapshots that are kept for good."""
    return [SavedState(machine, each.generation).info for each in snapshots if each.pinned]


def current(machine: str, snapshots: Iterable[Snapshot]) -> SavedState:
    """The one of a machine's snapshots that it would wake from."""
    return SavedState(machine, next(each.generation for each in snapshots if each.current))
