"""Talking to a guest's commands in a test."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any, Protocol

from torpor_worker.command import CommandInput, CommandSignal, CommandSpec
from torpor_worker.sandbox import CommandEnded, CommandOutput, Event, GuestState, InterpreterDied, SandboxLost

ANSWER_SECONDS = 60
LIMIT_BYTES = 8 << 20


class Partner(Protocol):
    """What a link and a sandbox have in common."""

    async def command(self, position: int, seq: int, spec: CommandSpec, output_limit_bytes: int) -> None: ...
    async def feed_command(self, position: int, seq: int, piece: CommandInput) -> None: ...
    async def signal_command(self, position: int | None, seq: int, signal: CommandSignal) -> None: ...
    async def ping(self) -> GuestState: ...
    async def receive(self) -> Event: ...
    async def acknowledge(self) -> None: ...


class Talk:
    """Sends commands, and sorts what is said by command. Of other events it keeps all."""

    def __init__(self, partner: Partner, *, first: int = 0) -> None:
        self.partner = partner
        self.said: dict[int, list[CommandOutput]] = {}
        self.ends: dict[int, CommandEnded] = {}
        self.others: list[Event] = []
        self.order: list[Event] = []
        self._numbers = itertools.count(first)

    def number(self) -> int:
        """The next position, which is also a seq."""
        return next(self._numbers)

    async def send(self, command: str | list[str], *, limit_bytes: int = LIMIT_BYTES, **spec: Any) -> int:
        """Start a command; its seq."""
        number = self.number()
        line = command if isinstance(command, str) else tuple(command)
        await self.partner.command(number, number, CommandSpec(line, **spec), limit_bytes)
        return number

    async def feed(self, seq: int, data: bytes = b"", *, close: bool = False) -> None:
        """Give a command input."""
        await self.partner.feed_command(self.number(), seq, CommandInput(data, close))

    async def signal(self, seq: int, number: int, **more: Any) -> None:
        """Send a command a signal."""
        await self.partner.signal_command(self.number(), seq, CommandSignal(number, **more))

    async def hear(self, *, acknowledge: bool = True) -> Event:
        """The next event, sorted."""
        async with asyncio.timeout(ANSWER_SECONDS):
            event = await self.partner.receive()
        assert not isinstance(event, SandboxLost | InterpreterDied), event
        self.order.append(event)
        if isinstance(event, CommandOutput):
            self.said.setdefault(event.seq, []).append(event)
        elif isinstance(event, CommandEnded):
            self.ends[event.seq] = event
        else:
            self.others.append(event)
        if acknowledge:
            await self.partner.acknowledge()
        return event

    async def end(self, seq: int) -> CommandEnded:
        """Wait until a command has ended."""
        while seq not in self.ends:
            await self.hear()
        return self.ends[seq]

    async def run(self, command: str | list[str], **spec: Any) -> CommandEnded:
        """Start a command and wait until it has ended."""
        return await self.end(await self.send(command, **spec))

    async def until(self, seq: int, text: bytes) -> None:
        """Wait until a command has said something."""
        while text not in self.bytes(seq):
            await self.hear()

    def bytes(self, seq: int, kind: str = "stdout") -> bytes:
        """What a command has written to a stream so far."""
        return b"".join(each.data for each in self.said.get(seq, []) if each.kind == kind)
