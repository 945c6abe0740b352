"""Shell commands and files of a machine, as the sandbox interfaces of frameworks ask for them."""

from __future__ import annotations

import ast
import base64
from typing import Any, Final, NamedTuple

from .._machine import Machine
from ._exit_codes import exit_code_of

PIECE_BYTES = 256 * 1024
TIMED_OUT: Final = 124

_PROGRAM = """
def _torpor_shell(what, *arguments):
    import base64, os
    try:
        if what == "write":
            path, start, data = arguments
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "ab" if start else "wb") as file:
                file.write(base64.b64decode(data))
            return None
        path, start, size = arguments
        with open(path, "rb") as file:
            file.seek(start)
            return base64.b64encode(file.read(size))
    except OSError as error:
        return error.errno
"""


class Executed(NamedTuple):
    """How a command ended."""

    output: str
    """Of stdout and stderr, in the order in which it came."""
    exit_code: int | None
    """As shells have it, 124 after a time-out; None if the machine's process died."""
    truncated: bool
    """Whether it said more than is kept."""


class Shell:
    """Runs commands and moves files on a machine."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def execute(self, command: str, timeout_seconds: float) -> Executed:
        """Run a shell command, beside whatever else runs on the machine."""
        said: list[str] = []
        result = self._machine.commands.run(
            command, timeout_seconds=timeout_seconds, on_output=lambda piece: said.append(piece.text)
        )
        exit_code = TIMED_OUT if result.timed_out else exit_code_of(result)
        if exit_code is None:
            said.append(result.error or "")
        return Executed("".join(said), exit_code, truncated=result.truncated_bytes > 0)

    def write(self, path: str, data: bytes) -> None:
        """Write a file, and make its folders. Raises OSError."""
        for start in range(0, len(data) or 1, PIECE_BYTES):
            piece = base64.b64encode(data[start : start + PIECE_BYTES]).decode("ascii")
            _check(self._ask("write", path, start, piece))

    def read(self, path: str) -> bytes:
        """A file. Raises OSError."""
        pieces: list[bytes] = []
        while True:
            piece = base64.b64decode(_check(self._ask("read", path, len(pieces) * PIECE_BYTES, PIECE_BYTES)))
            pieces.append(piece)
            if len(piece) < PIECE_BYTES:
                return b"".join(pieces)

    def _ask(self, *arguments: Any) -> Any:
        code = f"exec({_PROGRAM!r}); _torpor_shell(*{arguments!r})"
        result = self._machine.run(code, queue=True).raise_for_error()
        return None if result.value is None else ast.literal_eval(result.value)


def _check(answer: Any) -> Any:
    if isinstance(answer, int):
        raise OSError(answer, "The machine refused.")
    return answer
