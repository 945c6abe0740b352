"""How a machine comes back: its newest usable generation, and the log behind it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import NoReturn

import structlog

from torpor_worker import forgoing, results
from torpor_worker.adopting import Adoption, adopt
from torpor_worker.attached import Attached
from torpor_worker.bell import Bell
from torpor_worker.changing import Loss, told
from torpor_worker.commands import Commands
from torpor_worker.errors import CannotWake, MachineGone, ProcessDied, Quarantined, quarantine_sentence
from torpor_worker.files import Change
from torpor_worker.forgoing import named, source
from torpor_worker.instruction import Running
from torpor_worker.ledger import Entry, EntryKind, Hold, Recovery, Snapshot
from torpor_worker.replaying import FROM_MIDDLE, Replay, Replayer
from torpor_worker.sandbox import Limits, RuntimeUnavailable, Sandbox, SandboxError
from torpor_worker.services import Services
from torpor_worker.snapshots import SnapshotterError
from torpor_worker.survivors import Survivor
from torpor_worker.suspicion import Suspicion
from torpor_worker.wake_timer import WakeTimer

log = structlog.get_logger(__name__)

NOTES_AT_ONCE = 100
"""Replayed instructions that are noted together: the ledger commits them as a group."""


class Unusable(Exception):
    """The generation cannot be restored, whatever is tried."""


@dataclass(frozen=True, slots=True)
class Awake:
    """A machine that has come back, and what is to be done with it first."""

    hold: Hold
    attached: Attached
    position: int
    clean: bool
    """It is exactly its head: nothing was applied since, nothing left out."""
    commands: Commands
    """Those that run."""
    going_on: Entry | None
    """The unfinished instruction that runs in the snapshot."""
    rest: list[Entry]
    """Started entries that are still to be sent, in order: from an unfinished instruction on."""
    ran_again: dict[int, str]
    """Commands without an end that run again after a death, and from where."""
    background: bool
    """Threads, children or tasks of the user's live in it."""
    timer: WakeTimer
    adoption: Adoption | None = None
    """Where the process is, if it was not brought back but taken over."""


class Waking:
    """Brings one machine back, and remembers what its deaths taught."""

    def __init__(self, machine: str, services: Services, bell: Bell) -> None:
        self.suspicion = Suspicion(services.config.undo_limit)
        self.needs: Snapshot | None = None
        """The snapshot that a wake is reading at this moment."""
        self.attached: Attached | None = None
        """The process that is being brought back at this moment."""
        self.innocent: set[int] = set()
        """Commands in the background that ran when a process died for which something else was blamed."""
        self._background = False
        self._told: set[str] = set()
        """Codes of the notices that say what keeps the machine from being woken."""
        self._machine = machine
        self._services = services
        self._bell = bell

    async def bring_back(self, hold: Hold, timer: WakeTimer, *, recovering: bool, sent: int | None = None) -> Awake:
        """Restore and replay until a process lives, going back as far as it takes.

        `recovering`: its last process ended without a clean sleep, so that its users are told, and what was not saved
        is executed again only as the machine's settings have it. `sent` is the highest position which that process
        was sent, None if that is not known.
        Raises `CannotWake` (worth trying again later), `MachineGone` (parked), `Fenced`.
        """
        ledger = self._services.ledger
        named_already: list[int] = []
        while True:
            head = hold.head
            behind = await ledger.behind(hold, -1 if head is None else head.position)
            timer.ended("lease")
            inside = await self._inside(hold)
            if (undone := next((one for one in inside if one.undone and one.ended_here), None)) is not None:
                reason = f"instruction {undone.seq}, which runs in it, was undone"
                hold = await self._go_back(hold, reason)
                continue
            if recovering and (tried := self._tried_twice(head, inside, behind)) is not None:
                await self._give_up(hold, tried)
                continue
            if recovering:
                lost = forgoing.forgone(hold, inside, behind, sent=sent)
                if lost is not None:
                    hold = await ledger.forgo(hold, lost)
                    named_already += lost.seqs
                    continue
            if (gone := forgoing.unfit(hold, behind)) is not None:
                what = "a change of files" if gone.seq is None else f"instruction {gone.seq}"
                await self._park(hold, f"{what} is needed to recover it, and is not kept any more")
            # Before the try is counted: a runtime that is missing is not the machine's fault.
            await self._have_runtime(hold, self._services.host.series if head is None else head.series)
            if recovering and not await self._may_try(hold):
                hold = await self._go_back(hold, f"the server ended each of the {hold.tries} times it was brought back")
                continue
            replay = Replay(position=-1 if head is None else head.position)
            self.suspicion.brought_back()
            try:
                self.attached = attached = await self.attach(hold, timer)
                commands = Commands(attached, self._services)
                replayer = self._replayer(hold, attached, commands, recovering=recovering, sent=sent)
                current = next((entry for entry in inside if entry.kind is EntryKind.EXECUTE), None)
                if current is not None and head is not None and current.result is not None:
                    await replayer.go_on_with(current, head.running_used_seconds, replay)
                    current = None
                await self._go_on_with(hold, commands, inside, replay, recovering=recovering)
                if current is None:
                    await replayer.apply(behind, replay)
                else:
                    replay.rest = behind
                if replay.applied and current is None:
                    attached.forget_output()
                if replay.stopped and (lost := forgoing.stopped(hold, replay.position, behind, sent=sent)):
                    hold = await ledger.forgo(hold, lost)
                replay.effects_lost = [seq for seq in replay.effects_lost if seq not in named_already]
                await self._tell(hold, replay, recovering=recovering)
                timer.ended("replay")
            except (ProcessDied, SandboxError) as death:
                await self.remove()
                self._note(replay)
                hold = await self.learn(hold, str(death), running=False)
            except Unusable as error:
                hold = await self._go_back(hold, str(error))
            except BaseException:
                await self.remove()
                raise
            else:
                self._note(replay)
                self.attached = None
                timer.observed_by(self._services.metrics)
                clean = not replay.applied
                return Awake(
                    hold,
                    attached,
                    replay.position,
                    clean,
                    commands,
                    current,
                    replay.rest,
                    replay.ran_again,
                    self._background,
                    timer,
                )

    async def _inside(self, hold: Hold) -> list[Entry]:
        """What runs in the hold's head. Raises ValueError if the log does not have it."""
        head = hold.head
        if head is None or (head.running_seq is None and not head.commands):
            return []
        seqs = {each.seq for each in head.commands} | ({head.running_seq} - {None})
        inside = await self._services.ledger.entries(hold, [seq for seq in seqs if seq is not None])
        if len(inside) != len(seqs):
            raise ValueError(
                f"the log has not all of {sorted(map(str, seqs))}, which run in generation {head.generation}"
            )
        return inside

    async def _go_on_with(
        self, hold: Hold, commands: Commands, inside: list[Entry], replay: Replay, *, recovering: bool
    ) -> None:
        """Take up the commands that run in the head."""
        head = hold.head
        running = {} if head is None else {each.seq: each for each in head.commands}
        for entry in inside:
            if entry.seq in running:
                await commands.go_on_with(hold, entry, running[entry.seq], recovering=recovering)
                if entry.result is not None and entry.ended_here:
                    replay.applied = True
                elif entry.result is None and recovering and entry.is_awaited:
                    replay.ran_again[running[entry.seq].seq] = FROM_MIDDLE

    def _tried_twice(self, head: Snapshot | None, inside: list[Entry], behind: list[Entry]) -> Entry | None:
        """An unfinished entry that was begun, and then tried again, from the same point.

        Not a command that runs in the background of the head: that is the head's own, and judged with it.
        """
        first = {} if head is None else {each.seq: each.attempt for each in head.commands}
        if head is not None and head.running_seq is not None:
            first[head.running_seq] = head.running_attempt
        for entry in inside:
            if entry.seq is not None and entry.result is None and entry.is_awaited and entry.attempt > first[entry.seq]:
                return entry
        for entry in behind:
            tried = entry.seq is not None and entry.result is None and entry.attempt > 1
            if tried and entry.seq not in self.innocent:
                return entry
        return None

    async def take_over(self, hold: Hold, survivor: Survivor, timer: WakeTimer) -> Awake | None:
        """Take over a process that has outlived its worker; None if that cannot be: then it is removed."""
        taken = await adopt(hold, survivor, self._services, self._bell)
        if taken is None:
            return None
        attached, adoption = taken
        head = hold.head
        clean = head is not None and head.quiescent and head.position == adoption.position
        self.suspicion.taken_over(hold.tries, hold.deaths)
        self.attached = attached
        commands = Commands(attached, self._services, adopted=True)
        for entry, clock in adoption.commands:
            await commands.take_over(hold, entry, clock.used_seconds, clock.ahead_bytes)
        self.attached = None
        return Awake(
            hold,
            attached,
            adoption.position,
            clean,
            commands,
            going_on=None,
            rest=[],
            ran_again={},
            background=adoption.background,
            timer=timer,
            adoption=adoption,
        )

    async def learn(self, hold: Hold, reason: str, *, running: bool) -> Hold:
        """A process died: undo an entry or go back to an older generation if its deaths say so. The hold to go on with.

        Raises `MachineGone` if there is nothing left to go back to: the machine is parked.
        """
        suspicion = self.suspicion
        known = suspicion.deaths
        verdict = suspicion.died(running=running)
        if suspicion.deaths != known and verdict != "set_aside":
            suspicion.counted = True
            await self._services.ledger.count_death(hold, suspicion.deaths)
        match verdict:
            case "again":
                return hold
            case "undo" if suspicion.suspect is not None:
                seq = suspicion.suspect
                sentence = f"Instruction {seq} was undone: the machine's process ended after it each time ({reason})."
                await self._services.ledger.undo(hold, seq, sentence)
                return hold
            case _ if suspicion.suspect_change is not None and suspicion.suspect_change.position is not None:
                change = suspicion.suspect_change
                await self._services.ledger.undo_change(hold, suspicion.suspect_change.position)
                loss = Loss(Change.of_text(change.code).path, f"the machine's process ended each time ({reason})")
                await self._services.ledger.notice(hold, "changes_lost", told([loss]), [])
                suspicion.gone_back()
                return hold
            case _ if running and _dead_end(hold, await self._older(hold)) is not None:
                return hold  # what ran was undone for it: whoever ends process after process does not end the machine
            case _:
                return await self._go_back(hold, reason)

    async def _give_up(self, hold: Hold, entry: Entry) -> None:
        """Answer an instruction whose second attempt ended in death: it is undone, and not tried again."""
        running = Running(entry, entry.attempt, self._services.config)
        result = results.given_up(running, entry.attempt)
        await self._services.ledger.finish(hold, running.seq, entry.attempt, result, undone=True)

    def _note(self, replay: Replay) -> None:
        self.suspicion.replayed = replay.replayed
        self.suspicion.suspect = replay.suspect
        self.suspicion.suspect_change = replay.suspect_change

    async def _go_back(self, hold: Hold, reason: str) -> Hold:
        """Set the head aside for an older quiescent generation, at last for the empty interpreter; or park."""
        ledger, head = self._services.ledger, hold.head
        older = await self._older(hold)
        end = _dead_end(hold, older)
        if head is None or end is not None:
            await self._park(hold, f"{reason}{end or ''}")
        lost = hold.rebuilt_from is not None and (older is None or older.generation < hold.rebuilt_from)
        where = "its beginning and its whole log" if older is None else f"generation {older.generation}"
        if lost:
            where += f", without what it did up to generation {hold.rebuilt_from}: that log is not known any more"
        sentence = (
            f"Generation {head.generation} could not be used ({reason}); the machine was brought back from {where}."
        )
        hold = await ledger.go_back(hold, None if older is None else older.generation, sentence)
        self.suspicion.gone_back()
        await ledger.event(self._machine, "set_aside", generation=head.generation, reason=reason)
        return hold

    async def _older(self, hold: Hold) -> Snapshot | None:
        return None if hold.head is None else _older(hold.head, await self._services.ledger.generations(hold))

    async def _park(self, hold: Hold, reason: str) -> NoReturn:
        suspicion = self.suspicion
        seq = suspicion.suspect
        if seq is None and suspicion.replayed:
            seq = suspicion.replayed[-1]
        await self._services.ledger.park(hold, f"It could not be recovered: {reason}.", seq)
        await self._services.ledger.event(self._machine, "parked", reason=reason, seq=seq)
        raise MachineGone(f"The machine could not be recovered and is parked: {reason}.")

    async def _may_try(self, hold: Hold) -> bool:
        """Count, before it is done, that the head is brought back after a death; False if that was done too often."""
        suspicion = self.suspicion
        if not suspicion.tried:
            if hold.tries >= self._services.config.tries_limit:
                return False
            suspicion.remember(hold.deaths)
            suspicion.tried = suspicion.counted = True
            await self._services.ledger.count_try(hold)
        return True

    def _replayer(
        self, hold: Hold, attached: Attached, commands: Commands, *, recovering: bool, sent: int | None
    ) -> Replayer:
        services, careful = self._services, self.suspicion.careful
        shared = (attached, self._bell, services.config, commands, services.ledger, hold)
        if not recovering:
            return Replayer(*shared, careful=careful, bodies=services.bodies, handing_in=services.handing_in)
        return Replayer(
            *shared,
            careful=careful,
            bodies=services.bodies,
            handing_in=services.handing_in,
            sent=sent,
            run_seconds=hold.replay_seconds,
            bounded_behind=hold.asked_position,
        )

    async def attach(self, hold: Hold, timer: WakeTimer) -> Attached:
        """A process of the hold's head. Raises `CannotWake`, `Unusable`, `ProcessDied`."""
        services, head = self._services, hold.head
        limits = Limits(memory_bytes=hold.memory_bytes)
        async with services.admission.room(
            services.beginnings.image_bytes(hold.template) if head is None else head.image_bytes
        ):
            timer.ended("room")
            if head is None:
                sandbox = await self._start(hold.template, limits)
                timer.ended("sandbox")
            else:
                sandbox = await self._restore(hold, head, limits, timer)
            return Attached(sandbox, self._bell, self._machine)

    async def _have_runtime(self, hold: Hold, series: str) -> None:
        """See to it that images of a runtime series can be restored. Raises `CannotWake`: the machine is unharmed."""
        ledger = self._services.ledger
        try:
            reason = (await ledger.quarantined()).get(series)
            if reason is not None:
                raise Quarantined(quarantine_sentence(series, reason))
            await self._services.host.have(series)
        except (Quarantined, RuntimeUnavailable) as error:
            code = "runtime_quarantined" if isinstance(error, Quarantined) else "runtime_missing"
            message = f"The machine could not be woken: {error} It is unharmed, and it is tried again."
            await ledger.notice(hold, code, message, [])
            self._told.add(code)
            if isinstance(error, Quarantined):
                raise
            raise CannotWake(f"The machine cannot be woken: {error}") from error
        if self._told:
            await ledger.clear_notices(hold, *self._told)
            self._told.clear()

    async def _start(self, template: str | None, limits: Limits, series: str | None = None) -> Sandbox:
        services = self._services
        try:
            async with asyncio.timeout(services.config.restore_seconds):
                if series is not None:
                    return await services.host.start(self._machine, limits, series=series)
                return await services.beginnings.process(self._machine, template, limits)
        except (SandboxError, TimeoutError) as error:
            # An empty sandbox that does not start says nothing about the machine.
            raise CannotWake(f"No sandbox could be started: {_sentence(error)}") from error

    async def _restore(self, hold: Hold, head: Snapshot, limits: Limits, timer: WakeTimer) -> Sandbox:
        services = self._services
        await self._fetch(hold, head, timer)
        services.beginnings.restoring()
        with services.images.use(self._machine, head.generation) as image:
            if image is None:
                raise CannotWake("The local image was removed before it could be used.")
            try:
                async with asyncio.timeout(services.config.restore_seconds):
                    sandbox, state = await services.host.restore(self._machine, image, limits, head.series)
            except (SandboxError, TimeoutError) as error:
                failure = error
            else:
                self._background = state.background
                timer.ended("sandbox", then=("first_frame", state.answered_seconds))
                if state.last_position <= head.position:
                    return sandbox
                await sandbox.destroy()
                failure = SandboxError("the image is ahead of its snapshot")
        # The local image may be to blame: the next try takes what the store has.
        await services.images.forget(self._machine, head.generation)
        if self.suspicion.deaths > 0:
            # The host may be, too: if it cannot even start an empty sandbox, the generation is not set aside for it.
            await (await self._start(None, limits, head.series)).destroy()
        raise ProcessDied(f"it cannot be restored: {_sentence(failure)}") from failure

    async def _fetch(self, hold: Hold, head: Snapshot, timer: WakeTimer) -> None:
        services = self._services
        with services.images.use(self._machine, head.generation) as image:
            if image is not None:
                return
        self.needs = head
        try:
            try:
                await self._fetch_once(hold, head, timer)
            except Unusable:  # a byte may have been lost on the way; what is lost in the store is so again
                await self._fetch_once(hold, head, timer)
        finally:
            self.needs = None

    async def _fetch_once(self, hold: Hold, head: Snapshot, timer: WakeTimer) -> None:
        services = self._services
        try:
            into = await services.images.new(self._machine, head.generation)
            like = services.beginnings.stored(hold.template)
            assemble_seconds = await services.snapshotter.fetch(head.manifest_key, head.manifest_sha256, into, like)
            timer.ended("fetch", then=("assemble", assemble_seconds))
            await services.images.keep(self._machine, head.generation, fetched=True)
        except SnapshotterError as error:
            await services.images.forget(self._machine, head.generation)
            if error.retryable:
                raise CannotWake(f"The machine's snapshot could not be fetched: {_sentence(error)}") from error
            raise Unusable(f"its snapshot could not be read: {_sentence(error)}") from error

    async def remove(self) -> None:
        """Remove the process that is being brought back, if there is one."""
        if self.attached is not None:
            await self.attached.close(self._services.config.destroy_seconds)
            self.attached = None

    async def _tell(self, hold: Hold, replay: Replay, *, recovering: bool) -> None:
        """Leave notices of what a user must know about this wake; none after a clean sleep."""
        ledger, head = self._services.ledger, hold.head
        for start in range(0, len(replay.replayed), NOTES_AT_ONCE):
            some = replay.replayed[start : start + NOTES_AT_ONCE]
            await asyncio.gather(*(ledger.note_replay(hold, seq) for seq in some))
        if replay.replayed:
            message = f"The machine was brought back from {source(head)}; {_named(replay.replayed)} executed again."
            await ledger.notice(hold, "replayed", message, replay.replayed)
        elif recovering and head is not None:
            message = f"The machine was brought back from {source(head)}; background work since then is lost."
            await ledger.notice(hold, "restored", message, [])
        if replay.differed:
            first, *others = replay.differed
            so_did = f", and then {named(others)}" if others else ""
            message = (
                f"Executed again, instruction {first} was the first that answered differently{so_did}; "
                "the first answers stand."
            )
            await ledger.notice(hold, "differed", message, replay.differed)
        if replay.effects_lost:
            message = f"Ended from outside and not saved since: {_named(replay.effects_lost)} not run again."
            await ledger.notice(hold, "effects_lost", message, replay.effects_lost)
        if replay.losses:
            await ledger.notice(hold, "changes_lost", told(replay.losses), [])


def _older(head: Snapshot, generations: list[Snapshot]) -> Snapshot | None:
    """The newest quiescent generation that is not newer than the head's parent.

    A number between the two is of another line, which was set aside before and holds what was undone since.
    """
    if head.parent is None:
        return None
    older = [one for one in generations if one.quiescent and one.generation <= head.parent]
    return max(older, key=lambda one: one.generation, default=None)


def _dead_end(hold: Hold, older: Snapshot | None) -> str | None:
    """Why there is nothing behind the head to go back to, to be added to a sentence; None if there is."""
    if hold.head is None or hold.head.base:
        return ""
    if older is None and hold.recovery is Recovery.ROLLBACK:
        return "; and with its recovery set to rollback there is no older save to go to"
    if older is None and hold.rebuilt_from is not None:
        return "; there is no older save, and the log of its beginning is not known any more"
    return None


def _named(seqs: list[int]) -> str:
    return f"{named(seqs)} {'was' if len(seqs) == 1 else 'were'}"


def _sentence(error: BaseException) -> str:
    return "it took too long" if isinstance(error, TimeoutError) else str(error)
