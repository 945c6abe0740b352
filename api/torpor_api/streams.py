"""Streams as they go over the wire: part 1's NDJSON, events as NDJSON, events as SSE."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import structlog
from starlette.responses import StreamingResponse

from torpor_api.encoding import to_json
from torpor_api.errors import InstructionNotFound, MachineNotFound
from torpor_api.events import Event, shown_png
from torpor_api.instructions import pages
from torpor_api.lines import EXPIRED_MARKER, Chunk, LineSplitter, truncation_marker
from torpor_api.results import exec_result
from torpor_api.services import Services

log = structlog.get_logger(__name__)

NDJSON = "application/x-ndjson"
SSE = "text/event-stream"
PIECE_BYTES = 4096
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def wanted(accept: str | None) -> str | None:
    """The kind of stream that an `Accept` header asks for; None for plain JSON. The first named wins."""
    for part in (accept or "").split(","):
        kind = part.partition(";")[0].strip().lower()
        if kind in (NDJSON, SSE):
            return kind
        if kind in ("application/json", "*/*"):
            return None
    return None


async def messages(services: Services, account: str, machine: str, seq: int) -> AsyncIterator[list[dict[str, Any]]]:
    """Part 1's `output` messages and, at last, the `result`, in batches; an empty one says that nothing happens.

    Ends without a `result` when the server is stopping.
    """
    splitter = LineSplitter()

    def output(chunks: list[Chunk]) -> list[dict[str, Any]]:
        return [{"type": "output", "chunk": chunk.as_json(), "instruction_id": seq} for chunk in chunks]

    picture: str | None = None
    page = None
    async for page in pages(services, machine, seq):
        if page is None:
            yield []
            continue
        picture = shown_png(record for _, record in page.records) or picture
        for _, record in page.records:
            if record.kind != "display" and (batch := output(splitter.feed(record.kind, record.data))):
                yield batch
    if page is None or not page.finished:
        return
    marker = truncation_marker(page.truncated_bytes) if page.truncated_bytes else None
    marker = EXPIRED_MARKER if page.expired else marker
    last = output(splitter.finish(marker))
    row = await services.ledger.instruction(account, machine, seq)
    if row.result is not None:
        last.append({"type": "result", "instruction_id": seq, "result": exec_result(row.result, picture)})
    yield last


async def _while_there(batches: AsyncIterator[list[Event]]) -> AsyncIterator[list[Event]]:
    """The same, up to the moment when somebody deletes the machine: whoever asks again where the rest is, is told."""
    try:
        async for batch in batches:
            yield batch
    except (MachineNotFound, InstructionNotFound) as error:
        log.info("A stream ended with its machine.", code=error.code)


async def ndjson(batches: AsyncIterator[list[dict[str, Any]]]) -> AsyncIterator[bytes]:
    """One line each, and a single space where nothing happens: JSON readers skip it, and no line is blank.

    Pieces hold whole lines and few of them: one published client parses each piece that it receives on its own.
    """
    async for batch in _while_there(batches):
        piece = b"" if batch else b" "
        for item in batch:
            line = to_json(item) + b"\n"
            if piece and len(piece) + len(line) > PIECE_BYTES:
                yield piece
                piece = b""
            piece += line
        yield piece


async def server_sent(batches: AsyncIterator[list[Event]]) -> AsyncIterator[bytes]:
    """Server-sent events; browsers send the last `id` back as `Last-Event-ID`."""
    async for batch in _while_there(batches):
        if not batch:
            yield b": alive\n\n"
        for event in batch:
            identity = f"id: {event['id']}\n" if isinstance(event.get("id"), str) else ""
            yield f"{identity}event: {event['type']}\ndata: ".encode() + to_json(event) + b"\n\n"


def event_stream(events: AsyncIterator[list[Event]], kind: str, headers: dict[str, str]) -> StreamingResponse:
    """Answer with events, in the kind that was asked for."""
    body = server_sent(events) if kind == SSE else ndjson(events)
    return StreamingResponse(body, media_type=kind, headers={**HEADERS, **headers})
