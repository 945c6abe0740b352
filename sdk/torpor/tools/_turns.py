"""Calls of one answer run in their order, though frameworks send them at once."""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary, WeakValueDictionary

from .._async_machine import AsyncMachine
from .._machine import Machine

_TURNS: WeakKeyDictionary[asyncio.AbstractEventLoop, WeakValueDictionary[tuple[str, str], asyncio.Lock]] = (
    WeakKeyDictionary()
)


def turn(machine: Machine | AsyncMachine) -> asyncio.Lock:
    """What a call to a machine holds while it runs: others of this event loop come behind it, first come first served.

    A machine runs one thing after the other anyway; on their way there, over connections of their own, calls could
    overtake each other.
    """
    turns = _TURNS.setdefault(asyncio.get_running_loop(), WeakValueDictionary())
    key = (machine._connection.url, machine.name)
    lock = turns.get(key)
    if lock is None:
        turns[key] = lock = asyncio.Lock()
    return lock
