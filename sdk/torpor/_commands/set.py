"""`torpor set`: change a machine's settings."""

from __future__ import annotations

from .._errors import TorporError
from ._console import (
    DurabilityOption,
    IdleOption,
    MachineName,
    MemoryOption,
    client,
    idle_seconds_of,
    note,
    single_command,
)

app = single_command()


@app.command()
def set_settings(
    machine: MachineName, memory: MemoryOption = None, idle: IdleOption = None, durability: DurabilityOption = None
) -> None:
    """Change a machine's settings, at once also while it is awake; what is not named stays."""
    if memory is None and idle is None and durability is None:
        raise TorporError("Nothing to change was named.", hint="--memory, --idle or --durability.")
    with client() as torpor:
        info = torpor.machine(machine).update(
            memory_mb=memory, idle_seconds=idle_seconds_of(idle), durability=durability
        )
    falls_asleep = "stays awake" if info.idle_seconds is None else f"falls asleep after {info.idle_seconds:g} s"
    note(f"{machine} has {info.memory_mb} MB, {falls_asleep}, and its durability is {info.durability}.")
