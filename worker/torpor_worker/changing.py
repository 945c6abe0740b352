"""Changes of files: prepared in a machine by whoever asks, put into the log by its task, made again by a replay."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from torpor_worker.bodies import Bodies, Body
from torpor_worker.errors import FellAsleep
from torpor_worker.files import Change, FileRefused, FileTransfer
from torpor_worker.ledger import Entry
from torpor_worker.sandbox import Sandbox


@dataclass(slots=True)
class Prepared:
    """A change that only needs to be put into the log and made true."""

    change: Change
    body: Body | None
    sandbox: Sandbox
    """In which it is prepared."""
    transfer: FileTransfer
    logged: asyncio.Future[Entry | None]
    """The entry once it is in the log; None if its worker has ended before, as the transfer says."""


class Changes:
    """Those that wait for a machine's task."""

    def __init__(self) -> None:
        self._waiting: deque[Prepared] = deque()

    def add(self, prepared: Prepared) -> None:
        """One more."""
        self._waiting.append(prepared)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def next(self, sandbox: Sandbox) -> Prepared | None:
        """The first that is prepared in this sandbox and still wanted; it stays the first until `done`."""
        while self._waiting:
            first = self._waiting[0]
            if first.logged.done():
                self._waiting.popleft()
            elif first.sandbox is not sandbox:
                self.done(FellAsleep())  # that is gone, and what was prepared in it
            elif first.transfer.is_over:
                self.done(None)
            else:
                return first
        return None

    def done(self, outcome: Entry | Exception | None) -> None:
        """The first is in the log, or will never be."""
        logged = self._waiting.popleft().logged
        if logged.done():
            return
        if isinstance(outcome, Exception):
            logged.set_exception(outcome)
        else:
            logged.set_result(outcome)

    def fail(self, reason: Exception) -> None:
        """None of them will be in the log."""
        while self._waiting:
            self.done(reason)


async def feed(transfer: FileTransfer, bodies: Bodies | None, key: str | None) -> None:
    """Give a change its body, and wait until it is prepared."""
    if key is not None and bodies is not None:
        async for piece in bodies.pieces(key):
            await transfer.send(piece)
    await transfer.prepared()


NOT_KEPT = "what was written is not kept any more"


@dataclass(frozen=True, slots=True)
class Loss:
    """A change that is in the log and could not be made again."""

    path: str
    reason: str


async def make_again(sandbox: Sandbox, bodies: Bodies | None, entry: Entry) -> list[Loss]:
    """Make a change that is in the log; that it was lost, if it cannot be made any more."""
    if entry.position is None:
        raise ValueError(f"entry {entry.id} has no position")
    if entry.undone:
        return []
    change = Change.of_text(entry.code)
    if entry.body is None and change.work != "remove":
        return [Loss(change.path, NOT_KEPT)]
    transfer = None
    try:
        transfer = await sandbox.work_on_files(change)
        await feed(transfer, bodies, entry.body)
        await sandbox.apply_change(entry.position, transfer)
        await transfer.ended()
    except FileRefused as refused:
        gone_already = change.work == "remove" and refused.code == "file_not_found"
        return [] if gone_already else [Loss(change.path, str(refused))]
    except FileNotFoundError:
        return [Loss(change.path, NOT_KEPT)]
    finally:
        if transfer is not None:
            await transfer.close()
    return []


def told(losses: Sequence[Loss]) -> str:
    """The message of the notice `changes_lost`."""
    some = "; ".join(f"{loss.path!a}: {loss.reason}" for loss in losses[:20])
    return f"Changes of files could not be made again when the machine was brought back: {some}."
