"""Saves of one machine: captured from its sandbox, then stored and committed in the background."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from torpor_worker.attached import Attached
from torpor_worker.bell import Bell
from torpor_worker.cadence import SaveFacts, middle_save_due_at, save_due_at
from torpor_worker.errors import SaveRefused
from torpor_worker.ledger import Ending, Fenced, HeadMoved, Hold, RunningCommand, Snapshot
from torpor_worker.sandbox import SandboxDied
from torpor_worker.services import Services
from torpor_worker.snapshots import Parent

log = structlog.get_logger(__name__)

REPLAYS_SLOWER = 4
"""A replay may take so many times as long as the first run: a machine is saved before that would be cut short."""


@dataclass(frozen=True, slots=True)
class Point:
    """The moment of a capture: what it contains."""

    position: int
    running_seq: int | None = None
    running_used_seconds: float = 0.0
    output_offset: int = 0
    running_attempt: int = 1
    running_said_bytes: int | None = None
    commands: tuple[RunningCommand, ...] = ()


@dataclass(frozen=True, slots=True)
class _Capture:
    """An image on the local disk that is not stored yet."""

    hold: Hold
    generation: int
    key: str
    image: Path
    series: str
    point: Point
    activity: int
    began: float
    ending: Callable[[], Ending] | None


class Saver:
    """Takes captures and makes them durable, one at a time and in order; knows whether there is anything to save.

    At most one capture is being stored and one waits; a newer one takes the place of the one that waits.
    """

    def __init__(self, hold: Hold, services: Services, bell: Bell, *, clean: bool) -> None:
        """For a process that was brought back from the hold's head; clean: nothing happened in it since."""
        self.head = hold.head
        self.failure: str | None = None
        """Why the last save failed; None if it did not."""
        self.fenced = False
        """A commit was refused: the machine is not ours any more."""
        self._machine = hold.machine
        self._services = services
        self._bell = bell
        self._loop = asyncio.get_running_loop()
        self.facts = SaveFacts(last_activity=self._loop.time())
        self.apply_settings(hold)
        self._activity = 0
        self._captured = 0
        self._saved = 0
        self._failures = 0
        self._waiting: _Capture | None = None
        self._task: asyncio.Task[None] | None = None
        if not clean:
            self.ran(0.0)

    def apply_settings(self, hold: Hold) -> None:
        """Heed the hold's settings from now on."""
        self.facts.tail_seconds = min(self._services.config.tail_seconds, hold.replay_seconds / REPLAYS_SLOWER)

    def runs(self) -> None:
        """Something begins that somebody waits for, or goes on."""
        if self.facts.running_since is None:
            self.facts.running_since = self._loop.time()

    def happened(self, entry_bytes: int) -> None:
        """Something was done that is no instruction, and that the log has so much for."""
        now = self._loop.time()
        self._activity += 1
        self.facts.entries += 1
        self.facts.entry_bytes += entry_bytes
        self.facts.last_activity = now
        if self.facts.unsaved_since is None:
            self.facts.unsaved_since = now

    def ran(self, seconds: float, entry_bytes: int = 0) -> None:
        """An instruction ran for so long, which takes so much in the log, and nothing runs that somebody waits for."""
        self.happened(entry_bytes)
        self.facts.running_since = None
        self.facts.run_seconds += seconds

    @property
    def busy(self) -> bool:
        """Whether a capture is not stored yet."""
        return self._task is not None

    @property
    def clean(self) -> bool:
        """Whether the head has everything that instructions did."""
        return self.head is not None and self._saved == self._activity

    def due_at(self) -> float | None:
        """When the next gap between instructions is to be used for a save."""
        return None if self.busy else save_due_at(self.facts, self._services.config)

    def middle_due_at(self) -> float | None:
        """When the instruction that runs is to be saved in its middle."""
        return None if self.busy else middle_save_due_at(self.facts, self._services.config)

    async def capture(
        self, hold: Hold, attached: Attached, point: Point, ending: Callable[[], Ending] | None = None
    ) -> int:
        """Write an image of the sandbox, which goes on as before, and begin to store it. Raises `SaveRefused`.

        Returns the generation that it will be.

        `ending` says, at the moment of the commit, how the instruction ended whose result is committed with it. Such a
        capture must have been committed, or have failed, before the next one is made.
        From the guest's answer to the ping that the caller sent until this returns no frame may be sent.
        """
        began = self._loop.time()
        services = self._services
        self.failure = None
        try:
            generation, key = await services.ledger.allot_save(hold)
        except Fenced:
            raise
        except Exception as error:
            raise await self.refuse(hold, error) from error
        image = await services.images.new(self._machine, generation)
        try:
            async with asyncio.timeout(services.config.checkpoint_seconds):
                await attached.sandbox.checkpoint(image)
            await services.images.keep(self._machine, generation)
        except BaseException as error:
            await services.images.forget(self._machine, generation)
            if isinstance(error, SandboxDied) or not isinstance(error, Exception):
                raise
            raise await self.refuse(hold, error) from error
        self._captured = self._activity
        self.facts.unsaved_since = None
        self.facts.run_seconds = 0.0
        self.facts.entries = self.facts.entry_bytes = 0
        if self.facts.running_since is not None:
            self.facts.running_since = began
        replaced, self._waiting = (
            self._waiting,
            _Capture(hold, generation, key, image, attached.sandbox.series, point, self._activity, began, ending),
        )
        if self._task is None:
            self._task = self._loop.create_task(self._store_all(), name=f"save:{self._machine}")
        if replaced is not None:
            await services.images.forget(self._machine, replaced.generation)
        return generation

    def has_committed(self, generation: int) -> bool:
        """Whether the head is this generation, or a newer one."""
        return self.head is not None and self.head.generation >= generation

    async def settle(self) -> None:
        """Wait until no capture is on its way. Raises `Fenced`; a failed save is in `failure`."""
        while self._task is not None:
            await asyncio.wait([self._task])
        if self.fenced:
            raise Fenced

    async def close(self) -> None:
        """Give up what is on its way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._task = None
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            await self._services.images.forget(self._machine, waiting.generation)

    async def _store_all(self) -> None:
        try:
            while self._waiting is not None:
                capture, self._waiting = self._waiting, None
                try:
                    await self._store(capture)
                except Fenced:
                    self.fenced = True
                    await self._services.images.forget(self._machine, capture.generation)
                    return
                except asyncio.CancelledError:
                    await self._services.images.forget(self._machine, capture.generation)
                    raise
                except Exception as error:
                    await self._services.images.forget(self._machine, capture.generation)
                    await self._failed(capture.hold, error)
        finally:
            self._task = None
            self._bell.ring()

    async def _store(self, capture: _Capture) -> None:
        services, hold, point = self._services, capture.hold, capture.point
        parent = self.head
        with self._local_image(parent) as image:
            if parent is None:
                like = services.beginnings.stored(hold.template)
            else:
                like = Parent(parent.manifest_key, parent.manifest_sha256, image)
            fields = self._fields(
                capture, await services.ledger.facts(hold, point.running_seq, [each.seq for each in point.commands])
            )
            stored = await services.snapshotter.store(capture.image, capture.key, fields, like)

        async def commit() -> None:
            snapshot = Snapshot(
                generation=capture.generation,
                line=hold.line,
                parent=None if self.head is None else self.head.generation,
                position=point.position,
                running_seq=point.running_seq,
                running_used_seconds=point.running_used_seconds,
                output_offset=point.output_offset,
                running_attempt=point.running_attempt,
                running_said_bytes=point.running_said_bytes,
                commands=point.commands,
                manifest_key=stored.manifest_key,
                manifest_sha256=stored.manifest_sha256,
                stored_bytes=stored.stored_bytes,
                image_bytes=stored.image_bytes,
                series=capture.series,
                packs=stored.packs,
            )
            ending = None if capture.ending is None else capture.ending()
            await services.ledger.commit_snapshot(hold, snapshot.parent, snapshot, ending)
            self.head = snapshot

        try:
            await services.durably(commit)
        except HeadMoved:
            # A commit whose answer we never got may have been made: then the head is ours, and this one follows it.
            if not await self._read_back(hold):
                raise
            await services.durably(commit)
        self._bell.ring()
        await services.images.mark_stored(self._machine, capture.generation)
        now = self._loop.time()
        self._saved = max(self._saved, capture.activity)
        self.facts.last_save = now
        self.facts.cost_seconds = now - capture.began
        services.metrics.save_seconds.observe(self.facts.cost_seconds)
        services.metrics.save_stored_bytes.inc(stored.stored_bytes)
        self.facts.retry_at = None
        self.failure = None
        if self._failures:
            self._failures = 0
            await services.ledger.clear_notices(hold, "save_failed")

    def _local_image(self, snapshot: Snapshot | None) -> AbstractContextManager[Path | None]:
        if snapshot is None:
            return nullcontext()
        return self._services.images.use(self._machine, snapshot.generation)

    async def _read_back(self, hold: Hold) -> bool:
        """Take a newer head of our own line as ours; whether there is one."""
        known = -1 if self.head is None else self.head.generation
        newer = [
            snapshot
            for snapshot in await self._services.ledger.generations(hold)
            if snapshot.line == hold.line and snapshot.generation > known
        ]
        if newer:
            self.head = newer[0]
        return bool(newer)

    async def refuse(self, hold: Hold, error: Exception) -> SaveRefused:
        """Remember a save that failed before it was captured; what to raise for it."""
        await self._failed(hold, error)
        return SaveRefused(self.failure)

    async def _failed(self, hold: Hold, error: Exception) -> None:
        """Remember a failed save, and tell the machine's users; raises nothing but `Fenced`."""
        reason = "it took too long" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        now = self._loop.time()
        self._failures += 1
        self._services.metrics.save_failures.inc()
        self.failure = f"The machine could not be saved: {reason}"
        self.facts.retry_at = now + self._services.config.backoff_seconds(self._failures)
        if self._captured > self._saved or self._activity > self._saved:
            self._captured = self._saved
            if self.facts.unsaved_since is None:
                self.facts.unsaved_since = now
        log.warning("A save failed", action="save", machine=self._machine, error=reason)
        try:
            await self._services.ledger.notice(
                hold, "save_failed", f"{self.failure}; it stays awake, and the save is tried again.", []
            )
        except Fenced:
            raise
        except Exception as second:
            log.warning("A notice could not be left", action="notice", machine=self._machine, error=str(second))

    def _fields(self, capture: _Capture, facts: dict[str, Any]) -> dict[str, Any]:
        hold, point = capture.hold, capture.point
        running = {
            "seq": point.running_seq,
            "used_seconds": point.running_used_seconds,
            "output_offset": point.output_offset,
            **facts.get("running", {}),
        }
        return {
            "machine": hold.machine,
            "account": hold.account,
            "tags": dict(hold.tags),
            "epoch": hold.epoch,
            "line": hold.line,
            "generation": capture.generation,
            "parent": None if self.head is None else self.head.generation,
            "position": point.position,
            **facts,
            "running": None if point.running_seq is None else running,
            "commands": [
                {
                    "seq": each.seq,
                    "used_seconds": each.used_seconds,
                    "said_bytes": each.said_bytes,
                    "background": each.background,
                    "again": each.again,
                    **facts.get("commands", {}).get(each.seq, {}),
                }
                for each in point.commands
            ],
            "series": capture.series,
            "runtime": self._services.host.runtime_facts(capture.series),
        }
