"""`torpor set`: change a machine's settings."""

from __future__ import annotations

from .._errors import TorporError
from ._console import (
    DurabilityOption,
    IdleOption,
    MachineName,
    MemoryOption,
    RecoveryOption,
    ReplaySecondsOption,
    client,
    idle_seconds_of,
    note,
    single_command,
)

app = single_command()


@app.command()
def set_settings(
    machine: MachineName,
    memory: MemoryOption = None,
    idle: IdleOption = None,
    durability: DurabilityOption = None,
    recovery: RecoveryOption = None,
    replay_seconds: ReplaySecondsOption = None,
) -> None:
    """Change a machine's settings, at once also while it is awake; what is not named stays."""
    if all(value is None for value in (memory, idle, durability, recovery, replay_seconds)):
        raise TorporError("Nothing to change was named.", hint="See `torpor set --help`.")
    with client() as torpor:
        info = torpor.machine(machine, create=False).update(
            memory_mb=memory,
            idle_seconds=idle_seconds_of(idle),
            durability=durability,
            recovery=recovery,
            replay_seconds=replay_seconds,
        )
    falls_asleep = "stays awake" if info.idle_seconds is None else f"falls asleep after {info.idle_seconds:g} s"
    answers = f"durability {info.durability}, recovery {info.recovery}"
    note(f"{machine} has {info.memory_mb} MB, {falls_asleep}; {answers}.")
