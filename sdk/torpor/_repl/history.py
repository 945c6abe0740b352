"""What was typed and run before: here, and on the machine from anywhere."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from prompt_toolkit.history import FileHistory, History, ThreadedHistory

from .._errors import TorporError
from .._machine import Machine

LONGEST = 500
"""Instructions of a machine's log that are fetched."""


class MachineHistory(History):
    """The machine's own log, whoever ran it, and behind that what was typed on this computer at other machines."""

    def __init__(self, machine: Machine, file: Path) -> None:
        super().__init__()
        self._machine = machine
        self._here = FileHistory(str(file))
        self._known_seq: int | None = None
        self._ran_elsewhere = False
        self.loading = ThreadedHistory(self)
        """For the prompt: the same, loaded while the user already looks at it."""

    def load_history_strings(self) -> Iterable[str]:
        """The newest first. Where the server does not say what was run, there is only what is known here."""
        seen: set[str] = set()
        try:
            for instruction in self._machine.history(limit=LONGEST):
                if self._known_seq is None or instruction.seq > self._known_seq:
                    self._known_seq = instruction.seq
                code = instruction.code.strip()
                if code and code not in seen:
                    seen.add(code)
                    yield code
        except TorporError:
            pass
        for text in self._here.load_history_strings():
            if text not in seen:
                seen.add(text)
                yield text

    def store_string(self, string: str) -> None:
        """Keep what was typed here; what ran elsewhere is in the machine's log."""
        if not self._ran_elsewhere:
            self._here.store_string(string)

    def ran(self, seq: int) -> None:
        """This conversation's instruction had this number: what others ran since the last one is fetched."""
        known, self._known_seq = self._known_seq, seq
        if known is None or seq <= known + 1:
            return
        try:
            between = [
                instruction.code.strip()
                for instruction in self._machine.history(limit=min(seq - known, LONGEST))
                if known < instruction.seq < seq
            ]
        except TorporError:
            return
        last = self.loading.get_strings()[-1:]
        self._ran_elsewhere = True
        try:
            for code in reversed(between):
                if code:
                    self.loading.append_string(code)
            for own in last:
                self.loading.append_string(own)  # the newest stays the newest
        finally:
            self._ran_elsewhere = False


def history_file(environment: Mapping[str, str] | None = None) -> Path:
    """The file of what was typed here: `$XDG_STATE_HOME/torpor/repl_history`, by default under `~/.local/state`."""
    home = (os.environ if environment is None else environment).get("XDG_STATE_HOME") or ""
    base = Path(home) if home.startswith("/") else Path.home() / ".local" / "state"
    path = base / "torpor" / "repl_history"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    return path
