"""What instructions may still be given to read, each by its seq, from when they come until they have ended."""

from __future__ import annotations

import contextlib
import select
from typing import Any

from . import channel, handover
from .input import Input
from .outbox import Outbox

TOO_OLD = "This machine's interpreter is older than `stdin`, and reads nothing; a new machine's does."


class Inputs:
    """All that are open. Nothing here waits for who reads them."""

    def __init__(self, out: Outbox) -> None:
        self._out = out
        self._inputs: dict[int, Input] = {}

    def begin(self, fields: dict[str, Any], version: int) -> list[bytes]:
        """The packets that give an instruction its input, in front of those of its code, in this version."""
        if fields.get("stdin") is None:
            return []
        if version < channel.READS:
            self._out.notice("no_stdin", TOO_OLD)
            return []
        data, seq = handover.unpack(fields["stdin"]), fields["seq"]
        if not fields["stdin_open"]:
            return channel.packets(channel.STDIN, 0, seq, data)
        with contextlib.suppress(OSError):  # without a pipe there is nothing to read
            self._inputs[seq] = Input(seq)
            self._inputs[seq].add(data, close=False)
        return [channel.PACKET.pack(kind, channel.OPEN, 0, seq) for kind in (channel.STDIN, channel.PIPE)]

    def feed(self, fields: dict[str, Any]) -> None:
        """More for an instruction; nothing happens if it has ended, or reads nothing."""
        given = self._inputs.get(fields["seq"])
        if given is not None:
            given.add(handover.unpack(fields["data"]), close=fields["close"])

    def of(self, seq: int | None) -> Input | None:
        """What an instruction reads, if more may be given to it."""
        return None if seq is None else self._inputs.get(seq)

    def end(self, seq: int) -> None:
        """The instruction is over."""
        if (given := self._inputs.pop(seq, None)) is not None:
            given.close()

    def close(self) -> None:
        """Nobody reads any more, and nobody will."""
        while self._inputs:
            _, given = self._inputs.popitem()
            given.close()

    def wants(self) -> list[int]:
        """Descriptors and what to wait for at each, one after the other."""
        fds = [given.wanted for given in self._inputs.values()]
        return [part for fd in fds if fd is not None for part in (fd, select.POLLOUT)]

    def serve(self, ready: dict[int, int]) -> None:
        """One turn: write where there is room."""
        for given in self._inputs.values():
            if given.wanted in ready:
                given.write()

    # The successor.

    @property
    def fds(self) -> list[int]:
        """Every descriptor that belongs to them."""
        return [fd for given in self._inputs.values() for fd in given.fds]

    def handed_over(self) -> list[dict[str, Any]]:
        """For the supervisor's successor."""
        return [given.handed_over() for given in self._inputs.values()]

    def take_over(self, inputs: list[dict[str, Any]]) -> None:
        """Begin with what another one had, without touching a descriptor."""
        self._inputs = {fields["seq"]: Input.taken_over(fields) for fields in inputs}

    def keep_to_themselves(self) -> None:
        """See to it that no child gets a descriptor that was handed over."""
        for given in self._inputs.values():
            given.keep_to_itself()
