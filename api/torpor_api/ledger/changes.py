"""In-process word that something of a machine was committed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torpor_api.ledger.rows import Outcome


class Watch:
    """One reader's interest in a machine. A change between a read and `wait` is never missed."""

    def __init__(self, seq: int | None, prepare: Callable[[Outcome], Any] | None) -> None:
        self.seq = seq
        self.outcome: Outcome | None = None
        """That of instruction `seq`, if it was finished during the watch: nobody has to read it."""
        self.prepared: Any = None
        """What `prepare` made of it."""
        self._prepare = prepare
        self._coming: Outcome | None = None
        self._changed = asyncio.Event()

    async def wait(self, timeout_seconds: float | None) -> bool:
        """Wait until something of the machine was committed since the last return; False after the time-out."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._changed.wait()
        except TimeoutError:
            return False
        self._changed.clear()
        return True

    def coming(self, outcome: Outcome) -> None:
        """Prepare for an outcome that is about to be committed."""
        if self._prepare is not None:
            self._coming, self.prepared = outcome, self._prepare(outcome)

    def finished(self, outcome: Outcome) -> None:
        """Take an outcome that is committed."""
        self.outcome = outcome
        if self._prepare is not None and self._coming is not outcome:
            self.coming(outcome)

    def notify(self) -> None:
        """Say that something was committed."""
        self._changed.set()


class Changes:
    """Who watches which machine. Used from the event loop only."""

    def __init__(self) -> None:
        self._watches: dict[str, set[Watch]] = {}

    @contextmanager
    def watch(
        self, machine: str, seq: int | None = None, prepare: Callable[[Outcome], Any] | None = None
    ) -> Iterator[Watch]:
        """Watch a machine, or one instruction of it: enter, read, and if that was not enough `wait` and read again.

        `prepare` is called with the instruction's outcome while that is on its way to the disk.
        """
        watch = Watch(seq, prepare)
        self._watches.setdefault(machine, set()).add(watch)
        try:
            yield watch
        finally:
            watches = self._watches[machine]
            watches.discard(watch)
            if not watches:
                del self._watches[machine]

    def is_awaited(self, machine: str, seq: int) -> bool:
        """Whether somebody waits for the outcome of this instruction. May be asked from any thread."""
        return any(watch.seq == seq for watch in list(self._watches.get(machine, ())))

    def coming(self, machine: str, seq: int, outcome: Outcome) -> None:
        """Let those who wait for an outcome prepare for it: it is committed in a moment, if nothing goes wrong."""
        for watch in self._watches.get(machine, ()):
            if watch.seq == seq:
                watch.coming(outcome)

    def finished(self, machine: str, seq: int, outcome: Outcome) -> None:
        """Hand an outcome that is committed to those who wait for it."""
        for watch in self._watches.get(machine, ()):
            if watch.seq == seq:
                watch.finished(outcome)

    def notify(self, machines: Iterable[str]) -> None:
        """Wake everyone who watches one of these machines."""
        for machine in machines:
            for watch in self._watches.get(machine, ()):
                watch.notify()

    def notify_everyone(self) -> None:
        """Wake every watcher, whatever it watches: the server is stopping."""
        self.notify(list(self._watches))
