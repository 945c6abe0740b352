"""Saves of a machine that stays awake: in a gap between two instructions, or in the middle of a long one."""

from __future__ import annotations

import asyncio

import structlog

from torpor_worker.errors import SaveRefused
from torpor_worker.hearing import Hearing
from torpor_worker.inbox import Wishes
from torpor_worker.process import Process
from torpor_worker.sandbox import SandboxDied, SandboxError
from torpor_worker.suspicion import Suspicion

log = structlog.get_logger(__name__)


class IntervalSaves:
    """Saves one process when that is due or somebody wishes it, and tells those who do."""

    def __init__(self, process: Process, hearing: Hearing, wishes: Wishes, suspicion: Suspicion) -> None:
        self._process = process
        self._hearing = hearing
        self._wishes = wishes
        self._suspicion = suspicion
        self._loop = asyncio.get_running_loop()

    @property
    def due_at(self) -> float | None:
        """When the next gap between two instructions is to be used."""
        return None if self._suspicion.suspicious else self._process.saver.due_at()

    async def save_if_due(self) -> None:
        """Save in this gap between two instructions, if it is time, or asked for, or what ran must not run again."""
        needed, due_at = self._process.capture_first, self.due_at
        if not (needed or self._wishes.to_save or (due_at is not None and self._loop.time() >= due_at)):
            return
        self._wishes.saving()
        try:
            captured = await self._save(needed=needed)
        except SaveRefused as refused:
            self._wishes.save_ended(refused)
        else:
            if not captured and not self._process.saver.busy:
                self._wishes.save_ended(None)

    def answer(self) -> None:
        """Tell those whose save has ended."""
        saver = self._process.saver
        if not saver.busy:
            self._wishes.save_ended(None if saver.failure is None else SaveRefused(saver.failure))

    async def save_in_the_middle(self) -> None:
        """Save while something runs, unless that ends meanwhile or is being ended. Raises `SaveRefused`.

        What the guest says of an instruction from the ping on is not acknowledged before the capture is done: it is in
        the image, and said again by a process that goes on from it.
        """
        process = self._process
        offset = await self._hearing.hear_out()
        running = process.running
        if running is None:
            if process.busy:
                await self._save(needed=True)
            return
        if running.ended_by is not None:
            return
        began = self._loop.time()
        await process.ping()
        try:
            await process.capture(offset, running)
        finally:
            running.held_up_seconds += self._loop.time() - began
        await self._remember_clocks()

    async def _save(self, *, needed: bool) -> bool:
        """Save between two instructions, if it is needed or anything happened since the last one; whether it was."""
        process = self._process
        process.capture_first = False
        await process.flush()
        with process.hold_ups.one():
            state = await process.ping()
            if not needed and process.saver.clean and not state.background and not process.commands.any_live:
                return False
            await process.capture(0, None)
        await self._remember_clocks()
        return True

    async def _remember_clocks(self) -> None:
        """Write down the times of what runs after a capture, which is none of it."""
        process = self._process
        if process.running is None and process.commands.due_at(self._loop.time()) is None:
            return
        try:
            await process.remember_clock(await process.attached.sandbox.ping())
        except SandboxDied:
            raise
        except SandboxError as error:  # a successor would count this capture as time used
            log.warning("A clock was not written down", action="save", machine=process.hold.machine, error=str(error))
