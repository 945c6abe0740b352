"""An instruction in the background: started here, waited for anywhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ._result import Result

if TYPE_CHECKING:
    from ._machine import Machine, RunStream

FIRST_LOOK_SECONDS = 0.02
LONGEST_LOOK_SECONDS = 1.0


class Execution:
    """A handle on an instruction. It needs no process to live: `machine.execution(seq)` makes another one, anywhere.

    >>> training = machine.start("model.fit(x, y)", timeout_seconds=3600)
    >>> machine.execution(training.seq).wait().ok  # another process, an hour later
    True
    """

    def __init__(self, machine: Machine, seq: int) -> None:
        self.machine = machine
        self.seq = seq
        """The instruction's number on its machine."""

    def done(self) -> bool:
        """Whether it has a result. Raises `InstructionNotFound`."""
        return self.machine.instruction(self.seq).state == "finished"

    def wait(self, timeout: float | None = None) -> Result:
        """The result, as soon as it is there. Raises TimeoutError after so many seconds; the instruction runs on."""
        if timeout is not None:
            self._look(time.monotonic() + timeout)
        return self.stream().result()

    def _look(self, deadline: float) -> None:
        pause = FIRST_LOOK_SECONDS
        while not self.done():
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"Instruction {self.seq} of machine {self.machine.name} is not finished yet.")
            time.sleep(min(pause, left))
            pause = min(2 * pause, LONGEST_LOOK_SECONDS)

    def cancel(self) -> bool:
        """Interrupt it, and nothing else; False if it does not run (any more)."""
        return self.machine.interrupt(self.seq)

    def stream(self) -> RunStream:
        """All that it says, from its beginning."""
        return self.machine.attach(self.seq)

    def __repr__(self) -> str:
        return f"Execution({self.machine.name!r}, seq={self.seq})"
