"""The stream of what an instruction says."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any

from . import _calls
from ._connection import Connection
from ._deadline import Deadline
from ._errors import InstructionNotRunning
from ._events import Event
from ._result import Result
from ._stream import StreamState


class RunStream:
    """The events of an instruction while it runs. Iterate over it, then ask for its `result`.

    A cut connection, or a server that restarts, goes unnoticed: the stream goes on where it broke. Leaving it early
    does not end the instruction.

    >>> stream = machine.stream("for i in range(3): print(i)")
    >>> for event in stream:
    ...     if isinstance(event, torpor.Stdout):
    ...         print(event.text, end="")
    0
    1
    2
    >>> stream.result().ok
    True
    """

    def __init__(
        self,
        connection: Connection,
        state: StreamState,
        *,
        to_the_end: bool = False,
        deadline: Deadline | None = None,
    ) -> None:
        self._connection = connection
        self._state = state
        self._deadline = deadline
        self._events = connection.follow(state, to_the_end=to_the_end, deadline=deadline)

    @property
    def machine_name(self) -> str | None:
        """The machine that it runs on; None until the server has said it, if it is a new one."""
        return self._state.machine_name

    @property
    def seq(self) -> int | None:
        """The instruction's number; None until the server has said it."""
        return self._state.seq

    def send_stdin(self, text: str) -> None:
        r"""Send the code more to read; it was run with `stdin_open`. Raises `InstructionNotRunning`, `StdinClosed`.

        >>> stream = machine.stream("input('Name? ')", stdin_open=True)
        >>> for event in stream:
        ...     if isinstance(event, torpor.InputRequest):
        ...         stream.send_stdin("Ada\n")
        >>> stream.result().value
        "'Ada'"
        """
        self._send_stdin({"data": text})

    def close_stdin(self) -> None:
        """Send it nothing more: whoever reads on meets the end. Raises as `send_stdin` does.

        >>> stream = machine.stream("import sys; sys.stdin.read()", stdin_open=True)
        >>> for event in stream:
        ...     if isinstance(event, torpor.InputRequest):
        ...         stream.close_stdin()
        >>> stream.result().value
        "''"
        """
        self._send_stdin({"close": True})

    def _answer(self, body: Mapping[str, Any]) -> None:
        with contextlib.suppress(InstructionNotRunning):  # it was ended while the answer was thought of
            self._send_stdin(body)

    def _send_stdin(self, body: Mapping[str, Any]) -> None:
        if self.machine_name is None or self.seq is None:
            raise ValueError("The code is not running yet: read an event of the stream first.")
        self._connection.send(_calls.send_stdin(self.machine_name, self.seq, body))

    def on_connection(self, call: Callable[[bool], object]) -> None:
        """Have `call` called with True when the server has answered, with False each time that it cannot be reached.

        >>> stream = machine.stream("3 + 5")
        >>> stream.on_connection(print)
        >>> stream.result().value
        True
        '8'
        """
        self._state.on_connection = call

    def __iter__(self) -> Iterator[Event]:
        return self._events

    def result(self) -> Result:
        """What came of it, after all events that nobody has read yet.

        >>> machine.stream("3 + 5").result().value
        '8'
        """
        while True:
            for _ in self._events:
                pass
            if self._state.finished is not None:
                if (again := self._state.anew()) is None:
                    return self._state.result()
                self._state = again
            # Else an exception in the middle, or `close`, ended the iterator, and not the instruction.
            self._events = self._connection.follow(self._state, deadline=self._deadline)

    def close(self) -> None:
        """Leave the stream. The instruction runs on.

        >>> stream = machine.stream("print('begun', flush=True); 3 + 5")
        >>> next(iter(stream)).type
        'stdout'
        >>> stream.close()
        >>> stream.result().value
        '8'
        """
        self._events.close()

    def __enter__(self) -> RunStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
