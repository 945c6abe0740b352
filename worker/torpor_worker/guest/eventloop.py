"""The user's event loop: one that lives as long as the process, and passes for running while plain code runs."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from asyncio import base_events, events, runners
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")


def count_threads() -> int:
    """How many threads of Python's there are; unlike `threading.active_count` it needs no lock and no builtins."""
    return len(threading._active)  # type: ignore[attr-defined]


class AgentLoop(asyncio.SelectorEventLoop):
    """The persistent loop. While plain code of a cell runs it is stopped, but passes for the running loop."""

    def __init__(self) -> None:
        super().__init__()
        self._own_fds = self._count_fds()
        asyncio.set_event_loop(self)

    def add_own_reader(self, fd: int, callback: Callable[[], None]) -> None:
        """Have the agent's own fd read; it does not keep the loop from being quiet."""
        self.add_reader(fd, callback)
        self._own_fds = self._count_fds()

    def move_own_reader(self, old_fd: int, fd: int, callback: Callable[[], None]) -> None:
        """Read another fd instead, or one that was closed and has the same number again."""
        self.remove_reader(old_fd)
        self.add_own_reader(fd, callback)

    def pretend_running(self, pretend: bool) -> None:
        """Make `asyncio.create_task` and the like find this loop, or not."""
        events._set_running_loop(self if pretend else None)

    def has_tasks(self) -> bool:
        """Whether tasks of the user's are left."""
        return bool(asyncio.all_tasks(self))

    def is_quiet(self) -> bool:
        """Whether nothing can happen on it: no callback, no timer, no fd, and no thread that could add one."""
        return (
            not self._ready  # type: ignore[attr-defined]  # asyncio's own attributes
            and not self._scheduled  # type: ignore[attr-defined]
            and self._count_fds() == self._own_fds
            and not self._signal_handlers  # type: ignore[attr-defined]
            and count_threads() == 1
        )

    def _count_fds(self) -> int:
        return len(self._selector.get_map())  # type: ignore[attr-defined]  # asyncio's own attribute

    def is_whole(self) -> bool:
        """Whether user code has left its fd alone."""
        try:
            os.fstat(self._selector.fileno())  # type: ignore[attr-defined]  # asyncio's own attribute
        except (OSError, ValueError):
            return False
        return True

    def close(self) -> None:
        """Stay open: it belongs to the machine."""

    def abandon(self) -> None:
        """Close it for good."""
        super().close()


def outside(function: Callable[..., Result]) -> Callable[..., Result]:
    """Let `function` run an event loop of its own while the persistent one runs or passes for running."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Result:
        running = events._get_running_loop()
        if not isinstance(running, AgentLoop):
            return function(*args, **kwargs)
        if running._thread_id is not None and args and args[0] is running:  # type: ignore[attr-defined]
            return function(*args, **kwargs)  # it really runs: says so
        events._set_running_loop(None)
        try:
            return function(*args, **kwargs)
        finally:
            events._set_running_loop(running)
            asyncio.set_event_loop(running)

    return call


def let_loops_nest() -> None:
    """Make `asyncio.run`, `Runner` and `run_until_complete` work in a cell."""
    asyncio.run = runners.run = outside(asyncio.run)
    runners.Runner.run = outside(runners.Runner.run)  # type: ignore[method-assign]
    runners.Runner.close = outside(runners.Runner.close)  # type: ignore[method-assign]
    loop_class = base_events.BaseEventLoop
    loop_class.run_until_complete = outside(loop_class.run_until_complete)  # type: ignore[method-assign]
    loop_class.run_forever = outside(loop_class.run_forever)  # type: ignore[method-assign]
