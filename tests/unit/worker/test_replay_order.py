"""Whatever ran beside what, a replay keeps every order of an end and a start that there was, and comes to an end."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from torpor_worker.attached import Attached
from torpor_worker.bell import Bell
from torpor_worker.command import CommandSpec
from torpor_worker.commands import Commands
from torpor_worker.config import WorkerConfig
from torpor_worker.ledger import Entry, EntryKind, Exit, Hold, InstructionResult, Ledger
from torpor_worker.replaying import Replay, Replayer
from torpor_worker.sandbox import CommandEnded, Event, GuestState, Result, Sandbox
from torpor_worker.services import Services
from torpor_worker.stdin import Stdin

PATIENCE_SECONDS = 20
HOLD = Hold("m", "account", 1, 0, None, 1 << 30, None, {})


@dataclass
class Stage:
    """A sandbox in which what is sent ends in any order, one after the other."""

    chance: random.Random
    running: list[int] = field(default_factory=list)
    cells: set[int] = field(default_factory=set)
    history: list[tuple[str, int]] = field(default_factory=list)
    events: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)

    async def execute(self, position: int, seq: int, code: str, *, replaying: bool, stdin: Stdin | None) -> None:
        assert replaying
        assert stdin is None
        assert not self.cells.intersection(self.running), "two instructions at a time"
        self.cells.add(seq)
        self.begin(seq)

    async def command(self, position: int, seq: int, spec: CommandSpec, output_limit_bytes: int) -> None:
        self.begin(seq)

    def begin(self, seq: int) -> None:
        self.history.append(("start", seq))
        self.running.append(seq)
        asyncio.get_running_loop().call_soon(self.end_one)

    def end_one(self) -> None:
        seq = self.running.pop(self.chance.randrange(len(self.running)))
        self.history.append(("end", seq))
        if seq in self.cells:
            self.events.put_nowait(Result(seq, runtime_ms=1))
        else:
            self.events.put_nowait(CommandEnded(seq, 0, None, 1))

    async def receive(self) -> Event:
        return await self.events.get()

    async def acknowledge(self) -> None:
        return

    async def ping(self) -> GuestState:
        return GuestState(-1, None, False, commands={})


@dataclass
class NoLedger:
    """Nothing that is replayed needs it."""

    async def append_output(self, *_: object, **__: object) -> None:
        raise AssertionError


@st.composite
def logs(draw: st.DrawFn) -> list[Entry]:
    """What a machine did: at each moment something starts or something ends; of instructions one runs at a time."""
    entries: list[Entry] = []
    running: list[int] = []
    for _ in range(draw(st.integers(1, 14))):
        can_end = bool(running)
        if can_end and draw(st.booleans()):
            seq = running.pop(draw(st.integers(0, len(running) - 1)))
            entries[seq] = _ended(entries[seq], len(entries))
            continue
        is_cell = draw(st.booleans()) and not any(entries[seq].kind is EntryKind.EXECUTE for seq in running)
        seq = len(entries)
        entry = Entry(
            id=seq,
            kind=EntryKind.EXECUTE if is_cell else EntryKind.COMMAND,
            seq=seq,
            position=seq + 1,
            attempt=1,
            timeout_seconds=60,
            code="1" if is_cell else CommandSpec("true").to_text(),
            background=draw(st.booleans()) and not is_cell,
        )
        entries.append(entry)
        running.append(seq)
    for seq in running:
        entries[seq] = _ended(entries[seq], len(entries))
    return entries


def _ended(entry: Entry, position: int) -> Entry:
    exit_ = None if entry.kind is EntryKind.EXECUTE else Exit(0, None)
    result = InstructionResult(None, {}, None, None, 1, exit=exit_)
    return Entry(
        **{
            **{name: getattr(entry, name) for name in Entry.__slots__},
            "result": result,
            "ended_behind": position,
        }
    )


@settings(max_examples=300, deadline=None)
@given(entries=logs(), seed=st.integers(0, 2**32))
def test_an_entry_is_sent_after_the_end_of_all_that_had_ended_before_it(entries: list[Entry], seed: int) -> None:
    asyncio.run(_replayed(entries, seed))


async def _replayed(entries: list[Entry], seed: int) -> None:
    stage = Stage(random.Random(seed))
    bell = Bell()
    attached = Attached(cast(Sandbox, stage), bell, "m")
    config = WorkerConfig()
    ledger = cast(Ledger, NoLedger())
    services = Services(ledger, *cast(Any, (None, None, None)), config, *cast(Any, (None, None, None)))
    replayer = Replayer(attached, bell, config, Commands(attached, services), ledger, HOLD, careful=False)
    replay = Replay(position=0)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await replayer.apply(entries, replay)
    attached._reader.cancel()
    await asyncio.gather(attached._reader, return_exceptions=True)

    assert stage.running == []
    assert replay.replayed == [entry.seq for entry in entries]
    assert replay.differed == []
    assert [seq for what, seq in stage.history if what == "start"] == [entry.seq for entry in entries]
    moment = {event: number for number, event in enumerate(stage.history)}
    for first in entries:
        for second in entries:
            assert first.ended_behind is not None
            assert second.position is not None
            if first.ended_behind < second.position:
                assert moment["end", first.seq or 0] < moment["start", second.seq or 0]
