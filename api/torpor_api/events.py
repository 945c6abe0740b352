"""Output records to the events that `run`, `events` and the history give. Pure."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torpor_api.errors import InvalidRequest
from torpor_api.ledger import Notice, OutputPage
from torpor_api.lines import EXPIRED_MARKER, truncation_marker
from torpor_worker.ledger import OutputRecord
from torpor_worker.nesting import too_deep

Event = dict[str, Any]

_AFTER_RESULT = "result"
INPUT_REQUEST = "application/vnd.torpor.input-request+json"
"""What a guest shows when code waits for input that is yet to be sent."""


@dataclass(frozen=True, slots=True)
class EventId:
    """Where a reader is: behind byte `offset` of an attempt's output, and perhaps behind the result too."""

    attempt: int
    offset: int
    after_result: bool = False

    def __str__(self) -> str:
        suffix = f".{_AFTER_RESULT}" if self.after_result else ""
        return f"{self.attempt}.{self.offset}{suffix}"

    @classmethod
    def parse(cls, text: str) -> EventId:
        """Read an id that an event carried. Raises `InvalidRequest`."""
        attempt, dot, rest = text.partition(".")
        offset, second_dot, suffix = rest.partition(".")
        numbers = (attempt, offset)
        if not dot or not all(n.isascii() and n.isdigit() and len(n) <= 15 for n in numbers):
            raise InvalidRequest(f"after: {text[:40]!r} is not the id of an event.")
        if second_dot and suffix != _AFTER_RESULT:
            raise InvalidRequest(f"after: {text[:40]!r} is not the id of an event.")
        return cls(int(attempt), int(offset), bool(second_dot))


class EventMaker:
    """Turns records into events, one reader's worth. A character cut between records of a stream is kept whole."""

    def __init__(self) -> None:
        self._decoders = {kind: codecs.getincrementaldecoder("utf-8")("replace") for kind in ("stdout", "stderr")}

    def page(self, page: OutputPage) -> Iterator[Event]:
        """The events of a page's records; those that came after the result say `background`."""
        for offset, record in page.records:
            background = page.background_from is not None and offset >= page.background_from
            yield from self._record(page.attempt, offset, record, background=background)

    def flush(self, attempt: int, offset: int) -> Iterator[Event]:
        """What is left of characters that were never completed."""
        for kind, decoder in self._decoders.items():
            if text := decoder.decode(b"", True):
                yield _text_event(EventId(attempt, offset), kind, text, background=False)

    def _record(self, attempt: int, offset: int, record: OutputRecord, *, background: bool) -> Iterator[Event]:
        end = EventId(attempt, offset + len(record.data))
        if record.kind == "display":
            yield display_event(end, record.data, background=background)
            return
        decoder = self._decoders[record.kind]
        text = decoder.decode(record.data)
        if text:
            pending = len(decoder.getstate()[0])
            yield _text_event(EventId(attempt, end.offset - pending), record.kind, text, background=background)


def _text_event(event_id: EventId, kind: str, text: str, *, background: bool) -> Event:
    event: Event = {"type": kind, "id": str(event_id), "text": text}
    if background:
        event["background"] = True
    return event


def shown_png(records: Iterable[OutputRecord]) -> str | None:
    """The last picture that was displayed, in base64."""
    picture = None
    for record in records:
        if record.kind == "display":
            found = _bundle(record.data)[0].get("image/png")
            picture = found if isinstance(found, str) else picture
    return picture


def _bundle(data: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Content and metadata of a MIME bundle; what does not read as one (it was made in the sandbox) is plain text."""
    try:
        bundle = json.loads(data)
        content, metadata = bundle["data"], bundle.get("metadata", {})
        if not isinstance(content, dict) or not isinstance(metadata, dict) or too_deep(bundle):
            raise TypeError
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {"text/plain": data.decode("utf-8", "replace")}, {}
    return content, metadata


def display_event(event_id: EventId, data: bytes, *, background: bool) -> Event:
    """The event of a MIME bundle, or of a question."""
    content, metadata = _bundle(data)
    if isinstance(question := content.get(INPUT_REQUEST), dict):
        return _input_request(event_id, question)
    event: Event = {"type": "display", "id": str(event_id), "data": content, "metadata": metadata}
    if background:
        event["background"] = True
    return event


def _input_request(event_id: EventId, question: dict[str, Any]) -> Event:
    """The instruction waits for somebody to send it input. It was made in the sandbox."""
    read_bytes = question.get("read_bytes")
    return {
        "type": "input_request",
        "id": str(event_id),
        "prompt": str(question.get("prompt", "")),
        "password": bool(question.get("password")),
        "read_bytes": read_bytes if isinstance(read_bytes, int) and 0 <= read_bytes < 2**53 else 0,
    }


def truncated_event(event_id: EventId, truncated_bytes: int) -> Event:
    """Output went over the limit, and this much of it is lost."""
    return {
        "type": "notice",
        "id": str(event_id),
        "code": "output_truncated",
        "message": truncation_marker(truncated_bytes),
        "truncated_bytes": truncated_bytes,
    }


def expired_event(event_id: EventId) -> Event:
    """There was output, and it is too old to be kept."""
    return {"type": "notice", "id": str(event_id), "code": "output_expired", "message": EXPIRED_MARKER}


def restarted_event(event_id: EventId) -> Event:
    """The instruction began anew from a snapshot; output that the reader has seen since is void."""
    return {
        "type": "notice",
        "id": str(event_id),
        "code": "output_restarted",
        "message": "The instruction was taken up again from a snapshot; output from here on replaces what came before.",
    }


def notice_json(notice: Notice) -> dict[str, Any]:
    """A machine's notice as every answer shows it."""
    return {
        "id": notice.id,
        "code": notice.code,
        "message": notice.message,
        "seqs": notice.seqs,
        "at": notice.at.isoformat(),
    }


def merge_text(events: Iterable[Event]) -> list[Event]:
    """Put neighbouring pieces of one stream together; the id is that of the last piece."""
    merged: list[Event] = []
    texts: list[str] = []

    def close() -> None:
        if texts:
            merged[-1] = {**merged[-1], "text": "".join(texts)}
            texts.clear()

    for event in events:
        joins = bool(
            texts and event["type"] == merged[-1]["type"] and event.get("background") == merged[-1].get("background")
        )
        if joins:
            texts.append(event["text"])
            merged[-1] = event
            continue
        close()
        merged.append(event)
        if "text" in event:
            texts.append(event["text"])
    close()
    return merged
