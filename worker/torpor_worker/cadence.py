"""When a machine that is awake is saved without stopping."""

from __future__ import annotations

from dataclasses import dataclass

from torpor_worker.config import WorkerConfig

QUIET_COSTS = 20
"""A quiet save waits this many costs of a save after the last one, so that saving takes at most 5 % of the time."""
RUN_COSTS = 10
"""Unless the machine ran this many costs since: then what a crash would repeat is worth a save at the next gap."""


@dataclass(slots=True)
class SaveFacts:
    """What the times of a machine's saves depend on; times of one monotonic clock, in seconds."""

    unsaved_since: float | None = None
    """When the first thing ran that no save has; None if there is none."""
    last_activity: float = 0.0
    run_seconds: float = 0.0
    """How long instructions that have finished ran since the last save."""
    entries: int = 0
    """How many that were."""
    entry_bytes: int = 0
    """What they take in the log."""
    tail_seconds: float | None = None
    """How long instructions may run until they are saved whatever it costs; None: as the settings say."""
    running_since: float | None = None
    """Since when the instruction that runs has run unsaved: since it began, or was last saved in its middle."""
    background: bool = False
    """Whether the user's threads, children or tasks were alive when the guest was last asked."""
    last_save: float | None = None
    """When the last save ended, of this process."""
    cost_seconds: float = 0.0
    """How long it took, from ping to commit."""
    retry_at: float | None = None
    """No save before this, after a failed one."""


def tail_is_long(facts: SaveFacts, config: WorkerConfig) -> bool:
    """Whether so much lies behind the last save that a recovery would take too long."""
    tail_seconds = config.tail_seconds if facts.tail_seconds is None else facts.tail_seconds
    return (
        facts.entries >= config.tail_entries
        or facts.entry_bytes >= config.tail_bytes
        or facts.run_seconds >= tail_seconds
    )


def save_due_at(facts: SaveFacts, config: WorkerConfig) -> float | None:
    """From when on the next gap between instructions is used for a save; None: not at all.

    A machine that is called all the time is saved too: its first save comes once what it ran is as old as the quiet
    time, every other at the latest when it is as old as the save interval, or the log behind the last one is long.
    """
    if facts.unsaved_since is not None and tail_is_long(facts, config):
        due = facts.unsaved_since
    elif facts.unsaved_since is not None:
        quiet = facts.last_activity + config.quiet_save_seconds
        if facts.last_save is None:
            due = min(quiet, facts.unsaved_since + config.quiet_save_seconds)
        elif facts.run_seconds > RUN_COSTS * facts.cost_seconds > 0:
            due = facts.unsaved_since
        else:
            due = max(quiet, facts.last_save + QUIET_COSTS * facts.cost_seconds)
            due = min(due, max(facts.unsaved_since + config.save_interval_seconds, facts.last_save))
    elif facts.background:
        since = facts.last_activity if facts.last_save is None else facts.last_save
        due = since + max(config.save_interval_seconds, QUIET_COSTS * facts.cost_seconds)
    else:
        return None
    return due if facts.retry_at is None else max(due, facts.retry_at)


def middle_save_due_at(facts: SaveFacts, config: WorkerConfig) -> float | None:
    """From when on the instruction that runs is saved in its middle; None if none runs.

    That is when the oldest of what is unsaved, in it or before it, is as old as the save interval, and saving takes at
    most 5 % of the time.
    """
    if facts.running_since is None:
        return None
    since = facts.running_since if facts.unsaved_since is None else min(facts.unsaved_since, facts.running_since)
    due = since + config.save_interval_seconds
    if facts.last_save is not None:
        due = max(due, facts.last_save + QUIET_COSTS * facts.cost_seconds)
    return due if facts.retry_at is None else max(due, facts.retry_at)
