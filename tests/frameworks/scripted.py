"""A language model that follows a script, behind Anthropic's Messages API, so that programs for real models run as they are."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class ScriptedServer:
    """Asks for the next of `codes` when a person spoke, and repeats what the tool said when that has answered.

    `requests` are the bodies that it got. `environment` are the variables with which Anthropic's client finds it.
    """

    def __init__(self) -> None:
        self.codes: list[str] = []
        self.tool = "python"
        self.requests: list[dict[str, Any]] = []
        self._calls = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, name="scripted model", daemon=True)

    @property
    def environment(self) -> dict[str, str]:
        url = f"http://127.0.0.1:{self._server.server_port}"
        return {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_URL": url, "ANTHROPIC_API_KEY": "none"}

    @property
    def images(self) -> list[str]:
        """The pictures that it was shown, as base64, in all requests."""
        found: list[str] = []
        for request in self.requests:
            for block in _blocks(request["messages"]):
                if block.get("type") == "image" and (data := block["source"]["data"]) not in found:
                    found.append(data)
        return found

    def answer(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """The content of the next answer."""
        with self._lock:
            self.requests.append(request)
            results = [block for block in _content(request["messages"][-1]) if block.get("type") == "tool_result"]
            if results:
                return [{"type": "text", "text": "\n".join(_text(block) for block in results)}]
            self._calls += 1
            return [
                {
                    "type": "tool_use",
                    "id": f"toolu_{self._calls:04}",
                    "name": self.tool,
                    "input": {"code": self.codes.pop(0), "timeout_seconds": None},
                }
            ]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        model = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                message = _message(request, model.answer(request))
                streamed = bool(request.get("stream"))
                body = _streamed(message) if streamed else json.dumps(message).encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream" if streamed else "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        return Handler


def _message(request: dict[str, Any], content: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": "msg_0001",
        "type": "message",
        "role": "assistant",
        "model": request["model"],
        "content": content,
        "stop_reason": "tool_use" if content[0]["type"] == "tool_use" else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }


def _streamed(message: dict[str, Any]) -> bytes:
    events: list[dict[str, Any]] = [{"type": "message_start", "message": {**message, "content": [], "stop_reason": None}}]
    for index, block in enumerate(message["content"]):
        whole = block["type"] == "text"
        empty = {**block, "text": ""} if whole else {**block, "input": {}}
        delta = (
            {"type": "text_delta", "text": block["text"]}
            if whole
            else {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        )
        events += [
            {"type": "content_block_start", "index": index, "content_block": empty},
            {"type": "content_block_delta", "index": index, "delta": delta},
            {"type": "content_block_stop", "index": index},
        ]
    ended = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    events += [{"type": "message_delta", "delta": ended, "usage": {"output_tokens": 1}}, {"type": "message_stop"}]
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()


def _content(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _blocks(messages: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for message in messages:
        for block in _content(message):
            yield block
            if block.get("type") == "tool_result":
                yield from _content(block)


def _text(result: dict[str, Any]) -> str:
    return "\n".join(block["text"] for block in _content(result) if block.get("type") == "text")
