"""Completion: by the machine, which knows what its names are; and of the conversation's own commands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from .._errors import TorporError
from .._machine import Machine

MOST_MATCHES = 300


class MachineCompleter(Completer):
    """Asks the machine at each Tab. One that cannot say, or a server that does not know how, completes nothing."""

    def __init__(self, machine: Machine, commands: Sequence[str]) -> None:
        self._machine = machine
        self._commands = commands

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """What could stand at the cursor."""
        text = document.text
        if text.startswith(":"):
            typed = document.text_before_cursor
            yield from (Completion(name, -len(typed)) for name in self._commands if name.startswith(typed))
            return
        cursor = document.cursor_position
        try:
            found = self._machine.complete(text, cursor)
        except TorporError:
            return
        if not 0 <= found.start <= cursor <= found.end <= len(text):
            return
        rest = text[cursor : found.end]
        shown_from = text.rfind(".", found.start, cursor) + 1 - found.start if "." in text[found.start : cursor] else 0
        for match in found.matches[:MOST_MATCHES]:
            if not match.isprintable():
                continue
            inserted = match.removesuffix(rest) if rest else match
            yield Completion(inserted, found.start - cursor, display=match[shown_from:] or match)
