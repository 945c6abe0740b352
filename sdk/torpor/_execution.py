"""An instruction in the background: started here, waited for anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _calls, _http
from ._connection import Connection
from ._deadline import Deadline
from ._models import Instruction
from ._result import Result
from ._run_stream import RunStream
from ._stream import StreamState

if TYPE_CHECKING:
    from ._machine import Machine


class Execution:
    """A handle on an instruction. It needs no process to live: `machine.execution(seq)` makes another one, anywhere.

    >>> training = machine.start("sum(range(10**6))", timeout_seconds=3600)
    >>> machine.execution(training.seq).wait().value  # another process, an hour later
    '499999500000'
    >>> training.done()
    True
    """

    def __init__(self, connection: Connection, machine: Machine, seq: int) -> None:
        self._connection = connection
        self.machine = machine
        """The machine that it runs on."""
        self.seq = seq
        """The instruction's number on its machine."""

    @property
    def machine_name(self) -> str:
        """The name of its machine; with `seq` it says all that another process needs to find it."""
        return self.machine.name

    def done(self) -> bool:
        """Whether it has a result. Raises `InstructionNotFound`.

        >>> execution = machine.start("3 + 5")
        >>> execution.wait().value
        '8'
        >>> execution.done()
        True
        """
        call = _calls.instruction(self.machine.name, self.seq, events=False)
        return _http.parsed(self._connection.send(call), Instruction).state == "finished"

    def wait(self, timeout: float | None = None) -> Result:
        """The result, as soon as it is there. An error of the code is in it, and is not raised.

        Raises `NotFinished`, a TimeoutError, after `timeout` seconds (None: never). It runs on then, and can be waited
        for again.

        >>> execution = machine.start("3 + 5")
        >>> execution.wait(timeout=60).value
        '8'
        """
        state = StreamState(self.machine.name, seq=self.seq)
        return RunStream(self._connection, state, deadline=Deadline(timeout)).result()

    def cancel(self) -> bool:
        r"""Interrupt it, and nothing else, as soon as it begins if it still waits; False if it is finished.

        >>> endless = machine.start("print('begun', flush=True)\nwhile True: pass")
        >>> next(iter(endless.stream())).type
        'stdout'
        >>> endless.cancel()
        True
        >>> endless.wait().error.name
        'KeyboardInterrupt'
        """
        return self.machine.interrupt(self.seq)

    def send_stdin(self, text: str) -> None:
        r"""Send it more to read; it was started with `stdin_open`. Raises `InstructionNotRunning`, `StdinClosed`.

        >>> asking = machine.start("input()", stdin_open=True, timeout_seconds=60)
        >>> asking.send_stdin("Ada\n")
        >>> asking.wait().value
        "'Ada'"
        """
        self._connection.send(_calls.send_stdin(self.machine.name, self.seq, {"data": text}))

    def close_stdin(self) -> None:
        """Send it nothing more: whoever reads on meets the end. Raises as `send_stdin` does.

        >>> asking = machine.start("import sys; sys.stdin.read()", stdin_open=True, timeout_seconds=60)
        >>> asking.close_stdin()
        >>> asking.wait().value
        "''"
        """
        self._connection.send(_calls.send_stdin(self.machine.name, self.seq, {"close": True}))

    def stream(self) -> RunStream:
        """All that it says, from its beginning.

        >>> execution = machine.start("print('hello')")
        >>> [event.type for event in execution.stream()]
        ['stdout', 'result']
        """
        return RunStream(self._connection, StreamState(self.machine.name, seq=self.seq))

    def __repr__(self) -> str:
        return f"Execution({self.machine.name!r}, seq={self.seq})"
