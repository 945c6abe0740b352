"""The user's event loop: one that lives as long as the process, and seems to run while plain code runs."""

from __future__ import annotations

import asyncio
from asyncio import events
from typing import Any


class AgentLoop(asyncio.SelectorEventLoop):
    """The persistent loop. While plain code of a cell runs it is stopped, but passes for the running loop."""

    def __init__(self) -> None:
        super().__init__()
        asyncio.set_event_loop(self)

    def pretend_running(self, pretend: bool) -> None:
        """Make `asyncio.create_task` and the like find this loop, or not."""
        events._set_running_loop(self if pretend else None)

    def has_tasks(self) -> bool:
        """Whether tasks of the user's are left."""
        return bool(asyncio.all_tasks(self))
