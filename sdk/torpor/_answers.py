"""Answers to code that asks while it runs: the pure part."""

from __future__ import annotations

from typing import Any

from ._events import InputRequest


class Answers:
    """Knows which questions are answered already: one that is asked again, after a recovery, may be."""

    def __init__(self, stdin: str | None) -> None:
        self._sent_bytes = len((stdin or "").encode(errors="surrogatepass"))
        self._closed = False

    def wants(self, question: InputRequest, *, restarted: bool) -> bool:
        """Whether the question waits for an answer."""
        # What forks of the code read is not counted, so the count is looked at only where it is needed.
        is_on_its_way = restarted and question.read_bytes < self._sent_bytes
        return not self._closed and not is_on_its_way

    def body(self, answer: str | None) -> dict[str, Any]:
        """What is sent for an answer: a line, or (None) the end."""
        return self.piece(None if answer is None else f"{answer}\n")

    def piece(self, text: str | None) -> dict[str, Any]:
        """What is sent for a piece of text, whatever lines it has; or for (None) the end."""
        if text is None:
            self._closed = True
            return {"close": True}
        self._sent_bytes += len(text.encode(errors="surrogatepass"))
        return {"data": text}
