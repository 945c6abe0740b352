"""`%torpor`: a notebook's commands to its kernel, rather than to the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._errors import TorporError

if TYPE_CHECKING:
    from .kernel import TorporKernel

HELP = """\
%torpor               the machine that this notebook runs on
%torpor use NAME      run on another one: the name of a machine, or one of your own, for which it is made
%torpor new           run on a new one; the old one stays, asleep
%torpor sleep         put it to sleep now (never needed)
"""


def obey(kernel: TorporKernel, code: str) -> str | None:
    """What a cell that is a command of this kind says; None for every other cell. Raises `TorporError`."""
    words = code.split()
    if not words or words[0] != "%torpor" or "\n" in code.strip():
        return None
    match words[1:]:
        case []:
            return str(kernel.torpor)
        case ["use", name]:
            kernel.torpor.use(name)
            return str(kernel.torpor)
        case ["new"]:
            kernel.torpor.renew()
            return str(kernel.torpor)
        case ["sleep"]:
            kernel.torpor.machine().sleep()
            return "It sleeps. The next cell wakes it."
    raise TorporError("No such command of %torpor.", hint=HELP)
