"""What other tasks leave for a machine's task."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from torpor_worker.bell import Bell
from torpor_worker.changing import Changes
from torpor_worker.ledger import Entry


class Inbox:
    """Hints that the log has something to run. They may be lost, repeated or late: positions tell."""

    def __init__(self, bell: Bell) -> None:
        self.look = False
        """Whether to look into the log for accepted entries."""
        self.look_after = False
        """Whether to look once more when no instruction runs: one may wait for that."""
        self.draining = False
        self.unwanted: set[int] = set()
        """Seqs that are to be interrupted as soon as they begin."""
        self.changes = Changes()
        """Changes of files to be put into the log."""
        self.users = 0
        """How many work with its files: it does not fall asleep."""
        self.stays = asyncio.Event()
        """Set but while the ledger is asked to release it: whoever comes to its files then waits for the answer."""
        self.stays.set()
        self.called_at: float | None = None
        """When the first hint came that nothing was done about yet, in the loop's time."""
        self._loop = asyncio.get_running_loop()
        self._bell = bell
        self._started: deque[Entry] = deque()

    def deliver(self, entry: Entry | None) -> None:
        """An entry was accepted: a started one to run now, or None (or one that waits) to look into the log."""
        if entry is not None and entry.position is not None:
            self._started.append(entry)
        else:
            self.look = True
        if self.called_at is None:
            self.called_at = self._loop.time()
        self._bell.ring()

    def begun(self) -> float | None:
        """An instruction is about to begin: since when it was known of, if a hint told."""
        called_at, self.called_at = self.called_at, None
        return called_at

    def drain(self) -> None:
        """The worker is stopping."""
        self.draining = True
        self._bell.ring()

    @property
    def called(self) -> bool:
        """Whether there is, or may be, something to run."""
        return bool(self._started) or self.look

    def take(self, position: int) -> Entry | None:
        """The next started entry above a position; the others are known already."""
        while self._started:
            entry = self._started.popleft()
            if entry.position is not None and entry.position > position:
                return entry
        return None

    def clear(self) -> None:
        """Forget all hints: the log has been read, or there is no machine."""
        self._started.clear()
        self.look = self.look_after = False


@dataclass(slots=True)
class Sync:
    """Somebody who waits for a save."""

    done: asyncio.Future[None]
    captured: bool = False
    """Whether the save that it waits for is on its way."""


class Wishes:
    """Callers that wait until a machine is awake, asleep or saved."""

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self._loop = asyncio.get_running_loop()
        self._wakers: list[asyncio.Future[None]] = []
        self._sleepers: list[asyncio.Future[bool]] = []
        self._syncs: list[Sync] = []

    async def awake(self) -> None:
        """Wait until it is awake."""
        waker: asyncio.Future[None] = self._loop.create_future()
        self._wakers.append(waker)
        await waker

    async def asleep(self) -> bool:
        """Wait until it has fallen asleep, or declined to."""
        sleeper: asyncio.Future[bool] = self._loop.create_future()
        self._sleepers.append(sleeper)
        self._bell.ring()
        return await sleeper

    async def saved(self) -> None:
        """Wait until it is saved."""
        sync = Sync(self._loop.create_future())
        self._syncs.append(sync)
        self._bell.ring()
        await sync.done

    @property
    def to_wake(self) -> bool:
        """Whether somebody waits for it to be awake."""
        return bool(self._wakers)

    @property
    def to_sleep(self) -> bool:
        """Whether somebody waits for it to be asleep."""
        return bool(self._sleepers)

    @property
    def to_save(self) -> bool:
        """Whether somebody waits for a save that has not begun."""
        return any(not sync.captured for sync in self._syncs)

    @property
    def to_answer(self) -> bool:
        """Whether somebody waits for a save that is on its way, or has ended."""
        return any(sync.captured for sync in self._syncs)

    def woke(self) -> None:
        """It is awake."""
        for waker in self._wakers:
            if not waker.done():
                waker.set_result(None)
        self._wakers.clear()

    def slept(self, answer: bool | Exception) -> None:
        """It is asleep, or has something to do, or could not be saved."""
        for sleeper in self._sleepers:
            if sleeper.done():
                continue
            if isinstance(answer, Exception):
                sleeper.set_exception(answer)
            else:
                sleeper.set_result(answer)
        self._sleepers.clear()

    def saving(self) -> None:
        """A save begins that is for all who wait now."""
        for sync in self._syncs:
            sync.captured = True

    def save_again(self) -> None:
        """The process died before its save had ended: the next one's is for all who wait."""
        for sync in self._syncs:
            sync.captured = False

    def save_ended(self, failure: Exception | None) -> None:
        """The save on its way has ended."""
        for sync in self._syncs:
            if sync.captured and not sync.done.done():
                if failure is None:
                    sync.done.set_result(None)
                else:
                    sync.done.set_exception(failure)
        self._syncs = [sync for sync in self._syncs if not sync.captured]

    def end(self, reason: Exception, *, slept: bool = False) -> None:
        """None of it will happen any more; after a sleep those who wished for that, or a save, have it."""
        for waker in self._wakers:
            if not waker.done():
                waker.set_exception(reason)
        self._wakers.clear()
        self.slept(True if slept else reason)
        self.saving()
        self.save_ended(None if slept else reason)
