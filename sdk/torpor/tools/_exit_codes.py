"""How a command ended, in a number, as frameworks want it."""

from __future__ import annotations

import signal
from typing import Final

from .._command_models import CommandResult

_BY_SIGNAL: Final = 128


def exit_code_of(result: CommandResult) -> int | None:
    """As a shell has it, 128 and more for a signal; None for what could not begin, or whose end nobody saw."""
    if result.exit_code is not None or result.signal is None:
        return result.exit_code
    numbers = {each.name: each.value for each in signal.Signals}
    return _BY_SIGNAL + numbers.get(result.signal, 0)  # this host may know fewer signals than the machine
