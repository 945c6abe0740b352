"""`torpor set`: change a machine's settings."""

from __future__ import annotations

from .._errors import TorporError
from ._console import (
    DurabilityOption,
    IdleOption,
    Json,
    MachineName,
    MemoryOption,
    RecoveryOption,
    ReplaySecondsOption,
    client,
    done,
    idle_seconds_of,
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
    as_json: Json = False,
) -> None:
    """Change a machine's settings, at once also while it is awake; what is not named stays.

    [bold]torpor set analysis --memory 4096 --idle never[/bold]  more memory, and it stays awake

    [bold]torpor set analysis --durability instruction[/bold]  nothing answered is ever executed again
    """
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
    sentence = f"{machine} has {info.memory_mb} MB, {falls_asleep}; {answers}."
    done(
        machine,
        sentence,
        as_json=as_json,
        memory_mb=info.memory_mb,
        idle_seconds=info.idle_seconds,
        durability=info.durability,
        recovery=info.recovery,
        replay_seconds=info.replay_seconds,
    )
