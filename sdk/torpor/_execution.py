"""An instruction that runs in the background."""

from __future__ import annotations

from . import _calls, _http
from ._connection import Connection
from ._deadline import Deadline
from ._models import Instruction, Interrupted
from ._result import Result
from ._run_stream import RunStream
from ._stream import StreamState


class Execution:
    """An instruction that runs whether anybody waits for it or not, and can be asked after from any process.

    >>> execution = machine.start("sum(range(10**6))")
    >>> execution.wait().value
    '499999500000'
    >>> execution.done()
    True
    """

    def __init__(self, connection: Connection, machine_name: str, seq: int) -> None:
        self._connection = connection
        self._machine_name = machine_name
        self._seq = seq

    @property
    def machine_name(self) -> str:
        """The machine that it runs on."""
        return self._machine_name

    @property
    def seq(self) -> int:
        """Its number on that machine: with both, `client.machine(machine_name).execution(seq)` is it again."""
        return self._seq

    def done(self) -> bool:
        """Whether it is finished, with a value or an error. Raises `InstructionNotFound` if there is none."""
        call = _calls.instruction(self._machine_name, self._seq, events=False)
        return _http.parsed(self._connection.send(call), Instruction).state == "finished"

    def wait(self, timeout_seconds: float | None = None) -> Result:
        """What came of it, when it is finished. An error of the code is in the result, and is not raised.

        Raises `NotFinished` after `timeout_seconds` (None: never). It runs on then, and can be waited for again.
        """
        state = StreamState(self._machine_name, seq=self._seq)
        return RunStream(self._connection, state, deadline=Deadline(timeout_seconds)).result()

    def cancel(self) -> bool:
        """End it, and nothing else, with a KeyboardInterrupt; whether it was running. The machine lives on."""
        call = _calls.interrupt(self._machine_name, self._seq)
        return _http.parsed(self._connection.send(call), Interrupted).interrupted

    def stream(self) -> RunStream:
        """What it has said from its beginning, and says from now on."""
        return RunStream(self._connection, StreamState(self._machine_name, seq=self._seq))

    def __repr__(self) -> str:
        return f"Execution(machine_name={self._machine_name!r}, seq={self._seq})"
