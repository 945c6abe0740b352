"""The events of one instruction, over as many connections as it takes: the pure part of both clients' streams."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from . import _calls
from ._calls import Call
from ._errors import ProtocolError
from ._events import Event, Finished, Notice, parse_event
from ._lines import JsonLines
from ._result import Result, make_result


class StreamState:
    """Where a reader is. Each connection begins with `next_call`; a cut one is followed by another.

    Until the instruction's number is known the same request is sent again, which the server joins to the same work by
    its idempotency key; from then on the stream goes on behind the last event that came.
    """

    def __init__(
        self, machine_name: str | None, *, call: Call | None = None, seq: int | None = None, notices: bool = False
    ) -> None:
        if call is None and seq is None:
            raise ValueError("Either a call or a number.")
        self.machine_name = machine_name
        self.seq = seq
        self.notices = notices
        """Whether the machine's notices may come with it, which are told once."""
        self.finished: Finished | None = None
        self.restarted: bool = False
        """Whether the instruction was begun anew in a recovery, so that some of what came is void."""
        self.events: list[Event] = []
        self.on_connection: Callable[[bool], object] = lambda _: None
        """Called with True when a connection is there, with False when it was lost or could not be had."""
        self._call = call
        self._last_id: str | None = None
        self._lines = JsonLines()

    def next_call(self) -> Call:
        """What the next connection asks for."""
        self._lines = JsonLines()
        if self.machine_name is not None and self.seq is not None:
            return _calls.events(self.machine_name, self.seq, self._last_id, notices=self.notices)
        if self._call is None:
            raise ValueError("Nothing to ask for.")
        return self._call

    def opened(self, headers: Mapping[str, str]) -> None:
        """A connection was answered: its headers name the machine and the instruction."""
        self.machine_name = headers.get("Torpor-Machine", self.machine_name)
        seq = headers.get("Torpor-Instruction-Seq", "")
        if seq.isdigit():
            self.seq = int(seq)
        self.on_connection(True)

    def broken(self) -> None:
        """The connection was lost, and another is about to be tried."""
        self.on_connection(False)

    def feed(self, piece: bytes) -> Iterator[Event]:
        """The events that these bytes complete."""
        for fields in self._lines.feed(piece):
            event = parse_event(fields)
            if event is None:
                continue
            if isinstance(event.id, str):  # a machine's notices have numbers, which are no place in a stream
                self._last_id = event.id
            elif isinstance(event, Notice) and event in self.events:  # it was told before the connection was cut
                continue
            self._keep(event)
            yield event

    def _keep(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Finished):
            self.finished = event
        elif isinstance(event, Notice) and event.code == "output_restarted":
            self.restarted = True

    def anew(self) -> StreamState | None:
        """The same instruction from its beginning, if a recovery made void what was read; None if all of it counts."""
        if not self.restarted or self.seq is None:
            return None
        again = StreamState(self.machine_name, seq=self.seq)
        again.events += [event for event in self.events if isinstance(event, Notice) and not isinstance(event.id, str)]
        return again

    def result(self) -> Result:
        """The result, once it is `finished`."""
        if self.finished is None or self.machine_name is None or self.seq is None:
            raise ProtocolError("The stream ended without a result.")
        return make_result(
            self.machine_name, self.seq, self.finished.result, self.events, timings=self.finished.timings
        )
