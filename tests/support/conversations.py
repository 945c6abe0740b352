"""A conversation with a guest in a test: say something, hear all of the answer."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from torpor_worker.command import CommandInput
from torpor_worker.sandbox import (
    Event,
    GuestNotice,
    GuestState,
    InterpreterDied,
    Output,
    Result,
    SandboxDied,
    SandboxLost,
)
from torpor_worker.stdin import Stdin

ANSWER_SECONDS = 60


class Partner(Protocol):
    """What a link and a sandbox have in common."""

    async def execute(
        self, position: int, seq: int, code: str, *, replaying: bool, stdin: Stdin | None = None
    ) -> None: ...
    async def feed(self, position: int, seq: int, piece: CommandInput) -> None: ...
    async def reseed(self, position: int, seed: bytes) -> None: ...
    async def interrupt(self, seq: int, *, step: Literal["interrupt", "again", "kill"]) -> None: ...
    async def ping(self) -> GuestState: ...
    async def receive(self) -> Event: ...
    async def acknowledge(self) -> None: ...


@dataclass
class Answer:
    """All that came for one instruction."""

    ending: Event | None = None
    outputs: list[Output] = field(default_factory=list)
    notices: list[GuestNotice] = field(default_factory=list)

    def text(self, kind: str = "stdout") -> str:
        """What was written to a stream while the instruction ran."""
        data = b"".join(each.data for each in self.outputs if each.kind == kind)
        return data.decode("utf-8", "backslashreplace")

    @property
    def displays(self) -> list[dict[str, Any]]:
        """The MIME bundles that were shown."""
        return [json.loads(each.data)["data"] for each in self.outputs if each.kind == "display"]

    @property
    def value(self) -> str | None:
        """The value of an instruction that did not fail."""
        assert isinstance(self.ending, Result), self.ending
        assert self.ending.error is None, self.ending.error
        return self.ending.value

    @property
    def error(self) -> dict[str, Any]:
        """The error of an instruction that failed but left the interpreter alive."""
        assert isinstance(self.ending, Result), self.ending
        assert self.ending.error is not None, self.ending
        return self.ending.error

    @property
    def death(self) -> str:
        """Why the interpreter died."""
        assert isinstance(self.ending, InterpreterDied), self.ending
        return self.ending.reason


class Conversation:
    """Counts positions and seqs, acknowledges everything."""

    def __init__(self, partner: Partner, position: int = 0) -> None:
        self.partner = partner
        self.position = position

    async def run(self, code: str, stdin: str | None = None) -> Answer:
        """Execute and hear all of it."""
        await self.say(code, None if stdin is None else Stdin(stdin))
        return await self.hear()

    async def say(self, code: str, stdin: Stdin | None = None) -> int:
        """Send an instruction; its seq."""
        seq = self.position
        await self.partner.execute(seq, seq, code, replaying=False, stdin=stdin)
        self.position += 1
        return seq

    async def feed(self, seq: int, text: str, *, close: bool = False) -> None:
        """Send an instruction more to read."""
        await self.partner.feed(self.position, seq, CommandInput(text.encode(), close))
        self.position += 1

    async def hear(self, until: str | None = None) -> Answer:
        """What comes until the ending, or until a text has been written to the standard output."""
        answer = Answer()
        async with asyncio.timeout(ANSWER_SECONDS):
            while True:
                event = await self.partner.receive()
                if isinstance(event, Output):
                    answer.outputs.append(event)
                elif isinstance(event, GuestNotice):
                    answer.notices.append(event)
                else:
                    answer.ending = event
                if not isinstance(event, SandboxLost):
                    with suppress(SandboxDied):  # it may have gone since; then its last event comes next
                        await self.partner.acknowledge()
                if answer.ending is not None or (until is not None and until in answer.text()):
                    return answer

    async def interrupted(self, code: str) -> Answer:
        """Execute code that never ends by itself, interrupt it once it runs, again if need be, and hear the rest."""
        seq = await self.say("print('it runs', flush=True)\n" + code)
        await self.hear(until="it runs\n")
        again = asyncio.create_task(self._interrupt_until_it_ends(seq))
        try:
            return await self.hear()
        finally:
            again.cancel()

    async def _interrupt_until_it_ends(self, seq: int) -> None:
        await self.partner.interrupt(seq, step="interrupt")
        while True:
            await asyncio.sleep(2)
            await self.partner.interrupt(seq, step="again")
