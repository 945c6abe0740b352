"""How a process that was brought back is sent what it left unfinished, before anything new."""

from __future__ import annotations

from torpor_worker.forgoing import named
from torpor_worker.hearing import Hearing
from torpor_worker.ledger import Entry, Ledger
from torpor_worker.process import Process
from torpor_worker.replaying import FROM_BEGINNING, FROM_MIDDLE
from torpor_worker.waking import Awake


class Entering:
    """Brings one process to where its machine's log is."""

    def __init__(self, process: Process, hearing: Hearing, ledger: Ledger, sent: int | None) -> None:
        """`sent`: the highest position that a process of this hold was sent before it died."""
        self._process = process
        self._hearing = hearing
        self._ledger = ledger
        self._sent = sent
        self._ran_again: dict[int, str] = {}
        """What was running when the process ended, and runs again, and from where."""

    async def enter(self, awake: Awake, *, recovering: bool) -> None:
        """Go on with what runs, send the rest once more, and tell the machine's users what ran again."""
        process = self._process
        self._ran_again.update(awake.ran_again)
        if awake.going_on is not None:
            await process.go_on_with(awake.going_on, recovering=recovering)
            if recovering and awake.going_on.seq is not None:
                self._ran_again[awake.going_on.seq] = FROM_MIDDLE
        for entry in awake.rest:
            await self._send_again(entry)
        if self._ran_again:
            await self._tell()
        if not awake.clean:
            await process.make_left()
        await process.remember()

    async def _send_again(self, entry: Entry) -> None:
        """Send a started entry in its turn beside what runs already."""
        process = self._process
        await self._hearing.attend(lambda: not process.commands.awaits(entry.position))
        if entry.seq is None:
            await process.send(entry, entry.attempt)
        elif entry.result is not None:
            await process.send_once_more(entry)
        elif self._never_sent(entry):
            await process.send(entry, entry.attempt)
        else:
            attempt = await self._ledger.count_attempt(process.hold, entry.seq, 0)
            self._ran_again[entry.seq] = FROM_BEGINNING
            await process.send(entry, attempt)

    def _never_sent(self, entry: Entry) -> bool:
        """Whether it was started while its machine's process was dead already, so that no attempt was made at it."""
        return self._sent is not None and entry.position is not None and entry.position > self._sent

    async def _tell(self) -> None:
        told = []
        for how in dict.fromkeys(self._ran_again.values()):
            seqs = [seq for seq in sorted(self._ran_again) if self._ran_again[seq] == how]
            some, (was, runs) = named(seqs), ("was", "runs") if len(seqs) == 1 else ("were", "run")
            told.append(
                f"{some[:1].upper()}{some[1:]} {was} started when the machine's process ended, and {runs} again {how}."
            )
        await self._ledger.notice(self._process.hold, "ran_again", " ".join(told), sorted(self._ran_again))
