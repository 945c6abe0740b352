"""What a ledger must say for the snapshots that a store has. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from torpor_api.rebuild.survey import FoundSnapshot, Survey
from torpor_snapshotter.retention import Generation, superseded
from torpor_snapshotter.runtimes.description import Description

SEQS_SKIPPED: Final = 10_000
"""Instructions after the newest save have seqs that nobody knows: none of so many is used again."""
UNDERSTOOD: Final = ("machines/", "templates/")
"""What keys begin with of objects that a rebuild knows what to do with."""


@dataclass(frozen=True, slots=True)
class PlannedLine:
    """A line, and where it begins; see `schema.lines`."""

    line: int
    parent: int
    generation: int | None
    position: int
    undo: int | None = None


@dataclass(frozen=True, slots=True)
class PlannedSnapshot:
    """A generation of a machine."""

    found: FoundSnapshot
    generation: int
    epoch: int
    line: int
    parent: int | None
    position: int
    running: dict[str, Any] | None
    """`seq`, `used_seconds`, and if they are known `code` and `timeout_seconds`; None if it is quiescent."""
    base: bool
    created_at: int
    """In microseconds."""
    commands: tuple[dict[str, Any], ...] = ()
    """Those that run in it: `seq`, `used_seconds`, `said_bytes`, `background`, and more if it is known."""

    @property
    def quiescent(self) -> bool:
        """Whether nothing runs in it that anybody waits for."""
        return self.running is None and all(command["background"] for command in self.commands)

    @property
    def order(self) -> tuple[int, int, int]:
        """Which of two is newer: a machine that changed hands has generations of a higher epoch only."""
        return self.epoch, self.generation, self.created_at


@dataclass(frozen=True, slots=True)
class PlannedMachine:
    """A machine that is asleep as one of its generations, on a new line."""

    name: str
    account: str
    created_at: int
    tags: dict[str, str]
    settings: dict[str, Any]
    epoch: int
    line: int
    """The new one, which begins with the head."""
    next_generation: int
    next_seq: int
    next_position: int
    head: PlannedSnapshot
    snapshots: tuple[PlannedSnapshot, ...]
    lines: tuple[PlannedLine, ...]
    pinned: frozenset[int]
    """Generations that were pinned, as far as that can be known."""
    newest: int
    """The highest generation that any key in the store names: the head may be older if that cannot be read."""

    @property
    def objects(self) -> set[str]:
        """Keys of all that it needs."""
        return {key for one in self.snapshots for key in (one.found.key, *(pack.key for pack in one.found.packs))}


@dataclass(frozen=True, slots=True)
class Plan:
    """All that is to be written into a new ledger."""

    owner: str | None
    machines: tuple[PlannedMachine, ...]
    templates: tuple[FoundSnapshot, ...]
    """One of each name."""
    runtimes: tuple[Description, ...]
    """One of each series: of binary and file system that a manifest names."""
    kept: tuple[str, ...]
    """Keys of objects that are not to be taken for garbage."""


def plan(survey: Survey, now: int) -> Plan:
    """What follows from a survey; `now`, in microseconds, stands for times that are not known.

    If anything could not be used, nothing in the store is garbage: what is left over may belong to it. Objects that are
    of no machine and no template never are.
    """
    by_machine: dict[str, list[FoundSnapshot]] = defaultdict(list)
    for found in survey.snapshots:
        by_machine[found.fields["machine"]].append(found)
    last_save = max((_saved_at(found) for found in survey.snapshots), default=0)
    templates = {found.fields["template"]: found for found in sorted(survey.templates, key=_saved_at)}
    machines = [
        _machine(name, some, survey.generations[name], now, last_save) for name, some in sorted(by_machine.items())
    ]
    strange = {key for key in survey.left_over if not key.startswith(UNDERSTOOD)}
    runtimes = _vouched_for(survey)
    doubtful = {key for one in survey.runtimes for key in one.keys} - {key for one in runtimes for key in one.keys}
    return Plan(
        owner=survey.owner,
        machines=tuple(sorted(machines, key=lambda machine: (machine.created_at, machine.name))),
        templates=tuple(templates[name] for name in sorted(templates)),
        runtimes=runtimes,
        kept=tuple(sorted(doubtful | (set(survey.left_over) if survey.unusable else strange))),
    )


def _vouched_for(survey: Survey) -> tuple[Description, ...]:
    """Runtimes whose digests are in the newest manifest of their series, one of each.

    Manifests are sealed; what else is in the store may be of anybody who can write to it, and a runtime runs on hosts.
    """
    said: dict[str, object] = {}
    for found in sorted(survey.snapshots, key=_saved_at):
        if "runtime" in found.fields:
            said[found.fields["series"]] = found.fields["runtime"]
    return tuple({one.series: one for one in survey.runtimes if said.get(one.series) == one.facts}.values())


def _machine(name: str, found: Iterable[FoundSnapshot], newest: int, now: int, last_save: int) -> PlannedMachine:
    by_generation: dict[int, PlannedSnapshot] = {}
    for one in sorted((_snapshot(one, now) for one in found), key=lambda one: one.order):
        by_generation[one.generation] = one
    snapshots = tuple(by_generation[generation] for generation in sorted(by_generation))
    head = max(snapshots, key=lambda one: one.order)
    lines = _lines(snapshots)
    line = max((*(one.line for one in lines), *(one.line for one in snapshots))) + 1
    said = [one.found.fields for one in snapshots]
    fields = head.found.fields
    return PlannedMachine(
        name=name,
        account=fields["account"],
        created_at=min(fields.get("created_at", now), *(one.created_at for one in snapshots)),
        tags=fields.get("tags", {}),
        settings=fields.get("settings", {}),
        epoch=max(one.epoch for one in snapshots) + 1,
        line=line,
        next_generation=newest + 1,
        next_seq=max(_known_seq(one) for one in said) + SEQS_SKIPPED,
        next_position=max(one.position for one in snapshots) + 1,
        head=head,
        snapshots=snapshots,
        lines=(*lines, PlannedLine(line, head.line, head.generation, head.position)),
        pinned=_pinned(snapshots, head, lines, last_save),
        newest=newest,
    )


def _snapshot(found: FoundSnapshot, now: int) -> PlannedSnapshot:
    fields = found.fields
    generation, parent, running = fields["generation"], fields.get("parent"), fields.get("running")
    return PlannedSnapshot(
        found=found,
        generation=generation,
        epoch=fields["epoch"],
        line=fields["line"],
        parent=parent if parent is not None and parent < generation else None,
        position=fields["position"],
        running=running,
        base=bool(fields.get("base")) and parent is None and running is None,
        created_at=fields.get("saved_at", now),
        commands=tuple(fields.get("commands", ())),
    )


def _lines(snapshots: tuple[PlannedSnapshot, ...]) -> tuple[PlannedLine, ...]:
    """Lines as manifests say; of one that they do not tell of, where its first generation comes from."""
    said = {
        line: PlannedLine(line, parent, generation, position, undo)
        for one in snapshots
        for line, parent, generation, position, undo in one.found.fields.get("lines", [])
    }
    by_generation = {one.generation: one for one in snapshots}
    for one in snapshots:
        parent = None if one.parent is None else by_generation.get(one.parent)
        if parent is not None and parent.line < one.line and one.line not in said:
            said[one.line] = PlannedLine(one.line, parent.line, parent.generation, parent.position)
    return tuple(said[line] for line in sorted(said))


def _pinned(
    snapshots: tuple[PlannedSnapshot, ...], head: PlannedSnapshot, lines: tuple[PlannedLine, ...], last_save: int
) -> frozenset[int]:
    """What the head says, and what only a pin can have kept until the last save that there was of any machine.

    A pin too many can be taken away; a snapshot that was given up for want of one is gone.
    """
    begins = {line.line: line for line in lines}
    line, limit = head.line, head.generation
    limits = {line: limit}
    while (begin := begins.get(line)) is not None:
        line, limit = begin.parent, min(limit, -1 if begin.generation is None else begin.generation)
        limits[line] = limit
    said = set(head.found.fields.get("pinned", []))
    known = [
        Generation(
            number=one.generation,
            quiescent=one.quiescent,
            created_at=one.created_at,
            behind_head=one.generation <= limits.get(one.line, -1),
            line=one.line,
            kept=one.base or one.generation in said,
        )
        for one in snapshots
    ]
    surprising = superseded(known, last_save) & {one.number for one in known if one.quiescent}
    return frozenset(surprising | said & {one.number for one in known})


def _known_seq(fields: dict[str, Any]) -> int:
    """The seq behind all that a manifest knows of; if it does not say, no more instructions than positions started."""
    commands = [int(command["seq"]) + 1 for command in fields.get("commands", ())]
    return max(int(fields.get("next_seq", fields["position"] + 1)), *commands, 0)


def _saved_at(found: FoundSnapshot) -> int:
    return int(found.fields.get("saved_at", 0))
