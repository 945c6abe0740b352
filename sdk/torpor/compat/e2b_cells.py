"""What is the same for cells of both sandboxes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from .._errors import TorporError
from .._events import Display, Notice, Stderr, Stdout
from .e2b_results import Execution, ExecutionError, OutputMessage, Result, message_of, notices_of, result_of

RUN_SECONDS = 300.0
"""E2B's default time-out of a cell."""

OnOutput = Callable[[OutputMessage], object]
OnResult = Callable[[Result], object]
OnError = Callable[[ExecutionError], object]


def setting(envs: Mapping[str, str]) -> str:
    """Code that sets variables of the environment."""
    return f"import os; os.environ.update({dict(envs)!r})"


def check_language(language: str | None) -> None:
    """Raise `TorporError` for another language than Python."""
    if language not in (None, "python"):
        raise TorporError(f"{language} is not spoken here.", hint="Machines run Python; `commands.run` runs shells.")


def telling(
    on_stdout: OnOutput | None, on_stderr: OnOutput | None, on_result: OnResult | None
) -> Callable[[Stdout | Stderr | Display], object] | None:
    """What tells of output while a cell runs, and returns what the callback did; None if nobody wants to know."""
    if on_stdout is None and on_stderr is None and on_result is None:
        return None

    def tell(event: Stdout | Stderr | Display) -> object:
        if isinstance(event, Display):
            return None if on_result is None else on_result(result_of(event.data))
        call = on_stderr if isinstance(event, Stderr) else on_stdout
        return None if call is None else call(message_of(event))

    return tell


def endings(
    execution: Execution,
    notices: Iterable[Notice],
    on_stderr: OnOutput | None,
    on_result: OnResult | None,
    on_error: OnError | None,
) -> list[Callable[[], object]]:
    """The calls that tell of notices, of a value, and of an error."""
    calls: list[Callable[[], object]] = []
    if on_stderr is not None:
        calls += [partial(on_stderr, OutputMessage(line, time.time_ns(), True)) for line in notices_of(notices)]
    if on_result is not None and execution.results and execution.results[-1].is_main_result:
        calls.append(partial(on_result, execution.results[-1]))
    if on_error is not None and execution.error is not None:
        calls.append(partial(on_error, execution.error))
    return calls
