"""Shell commands and files of a machine, as the sandbox interfaces of frameworks ask for them."""

from __future__ import annotations

import ast
import base64
from typing import Any

from .._machine import Machine

PIECE_BYTES = 256 * 1024

_PROGRAM = """
def _torpor_shell(what, *arguments):
    import base64, os, subprocess
    if what == "execute":
        command, seconds = arguments
        process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return process.communicate(timeout=seconds)[0], process.returncode
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            return process.communicate()[0], 124
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


class Shell:
    """Runs commands and moves files on a machine."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def execute(self, command: str, timeout_seconds: float) -> tuple[bytes, int]:
        """What a command said, and its exit code."""
        output, exit_code = self._ask("execute", command, timeout_seconds, timeout_seconds=timeout_seconds + 10)
        return output, exit_code

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

    def _ask(self, *arguments: Any, timeout_seconds: float | None = None) -> Any:
        code = f"exec({_PROGRAM!r}); _torpor_shell(*{arguments!r})"
        result = self._machine.run(code, queue=True, timeout_seconds=timeout_seconds).raise_for_error()
        return None if result.value is None else ast.literal_eval(result.value)


def _check(answer: Any) -> Any:
    if isinstance(answer, int):
        raise OSError(answer, "The machine refused.")
    return answer
