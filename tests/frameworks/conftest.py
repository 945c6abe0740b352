"""What the frameworks' tests share. It runs in each framework's environment, beside nothing of ours but the SDK."""

from __future__ import annotations

import contextlib
import doctest
import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import torpor

DOCS = Path(__file__).parents[2] / "docs"
_COUNTER = itertools.count()
_PROGRAM = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
_RUN = """
import ast, asyncio, inspect, sys
names = {"__name__": "__main__"}
code = compile(sys.argv[1], "<example>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
done = eval(code, names)
if inspect.iscoroutine(done):
    asyncio.run(done)
"""
"""A program with `await` outside of functions, too, as in a notebook."""


@pytest.fixture
def client() -> Iterator[torpor.Client]:
    """A client of the server that all frameworks share."""
    with torpor.Client() as client:
        yield client


@pytest.fixture
def conversation(client: torpor.Client) -> Iterator[str]:
    """An id of a conversation that nobody has had yet."""
    name = f"{os.environ['TORPOR_TEST_RUN']}-{next(_COUNTER)}"
    yield name
    with contextlib.suppress(torpor.MachineNotFound):
        client.machine(name, create=False).delete()


@pytest.fixture
def recovered(client: torpor.Client, conversation: str) -> Callable[..., None]:
    """Have a machine, by default the conversation's, recovered from a crash, and leave the notice of it."""

    def crash(name: str = conversation) -> None:
        machine = client.machine(name)
        machine.run("kept = 3", notices=False)
        assert machine.crash()
        while not machine.run("kept", notices=False).ok:  # what begins while it dies ends in an error
            pass

    return crash


@pytest.fixture
def started() -> Callable[[torpor.Machine], None]:
    """Wait until a machine runs something."""

    def wait(machine: torpor.Machine) -> None:
        while getattr(next(machine.history(limit=1), None), "state", None) != "running":
            time.sleep(0.05)

    return wait


@pytest.fixture
def replaced(request: pytest.FixtureRequest) -> Callable[..., str]:
    """Run `later(...)` of the test, or another `function`, in a new process; the last line of what it returns."""

    def run(*arguments: str, function: str = "later") -> str:
        code = f"import runpy; print(runpy.run_path({str(request.path)!r})[{function!r}](*{arguments!r}))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip().splitlines()[-1]

    return run


@pytest.fixture
def later(client: torpor.Client, conversation: str, replaced: Callable[..., str]) -> Callable[..., str]:
    """Let the conversation's machine sleep, and run `later(conversation, ...)` of the test in a new process."""

    def run(*more: str) -> str:
        client.machine(conversation, create=False).sleep()
        return replaced(conversation, *more)

    return run


class ScriptedModel:
    """A server that a model's real client library talks to: it answers what a test says, and keeps what it gets.

    An answer may be a function of the request.
    """

    def __init__(self) -> None:
        self.answers: list[dict[str, Any] | Callable[[dict[str, Any]], dict[str, Any]]] = []
        self.requests: list[dict[str, Any]] = []
        model = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                model.requests.append(request)
                answer = model.answers.pop(0)
                message = answer(request) if callable(answer) else answer
                streamed = bool(request.get("stream"))
                body = anthropic_events(message) if streamed else json.dumps(message).encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream" if streamed else "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def model() -> Iterator[ScriptedModel]:
    """A model that says what the test says."""
    scripted = ScriptedModel()
    yield scripted
    scripted.close()


def anthropic_message(*content: dict[str, Any]) -> dict[str, Any]:
    """A message of a model of Anthropic's."""
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "scripted",
        "content": list(content),
        "stop_reason": "tool_use" if content[-1]["type"] == "tool_use" else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }


def anthropic_events(message: dict[str, Any]) -> bytes:
    """Such a message as it is streamed."""
    events: list[dict[str, Any]] = [{"type": "message_start", "message": {**message, "content": []}}]
    for index, block in enumerate(message["content"]):
        whole = json.dumps(block.get("input"))
        said = block["type"] == "text"
        delta = (
            {"type": "text_delta", "text": block["text"]}
            if said
            else {"type": "input_json_delta", "partial_json": whole}
        )
        events += [
            {
                "type": "content_block_start",
                "index": index,
                "content_block": block | ({"text": ""} if said else {"input": {}}),
            },
            {"type": "content_block_delta", "index": index, "delta": delta},
            {"type": "content_block_stop", "index": index},
        ]
    ended = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    events += [{"type": "message_delta", "delta": ended, "usage": {"output_tokens": 1}}, {"type": "message_stop"}]
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()


def said_by_tool(request: dict[str, Any]) -> dict[str, Any]:
    """A message that repeats the text that a tool has just returned."""
    contents = [result["content"] for result in request["messages"][-1]["content"]]
    texts = [
        content if isinstance(content, str) else "".join(block.get("text", "") for block in content)
        for content in contents
    ]
    return anthropic_message({"type": "text", "text": "\n".join(texts)})


class Programs:
    """Runs what the documentation shows, with a scripted model, and says what it printed.

    Asked, a model of Anthropic's uses its tool with the next of the given inputs, and then repeats what that said.
    Other models' answers are put into `model.answers` before.
    """

    def __init__(self, model: ScriptedModel, folder: Path) -> None:
        self._model = model
        self._folder = folder

    def guide(self, name: str, *inputs: dict[str, Any], tool: str = "python", before: str = "") -> str:
        """The programs of a page of `docs/guides`, one behind the other."""
        return self.page(f"guides/{name}", *inputs, tool=tool, before=before)

    def page(self, name: str, *inputs: dict[str, Any], tool: str = "python", before: str = "") -> str:
        """The programs of a page of `docs`, one behind the other."""
        programs = _PROGRAM.findall((DOCS / f"{name}.md").read_text())
        assert programs
        return self.run("\n".join(programs), *inputs, tool=tool, before=before)

    def docstring(
        self, module: ModuleType, *inputs: dict[str, Any], tool: str = "python", before: str = "", after: str = ""
    ) -> str:
        """The example at the head of a module; `before` makes what it takes for granted."""
        examples = doctest.DocTestParser().get_examples(module.__doc__ or "")
        assert examples
        program = "".join(each.source for each in examples)
        return self.run(program + after, *inputs, tool=tool, before=before)

    def run(self, program: str, *inputs: dict[str, Any], tool: str, before: str) -> str:
        """A program, in a process of its own."""
        for given in inputs:
            call = {"type": "tool_use", "id": f"toolu_{uuid.uuid4().hex}", "name": tool, "input": given}
            self._model.answers += [anthropic_message(call), said_by_tool]
        url = self._model.url
        variables = {
            **dict.fromkeys(("ANTHROPIC_BASE_URL", "ANTHROPIC_API_URL"), url),
            **dict.fromkeys(("ANTHROPIC_API_KEY", "OPENAI_API_KEY"), "none"),
            "OPENAI_BASE_URL": f"{url}/v1",
            "OPENAI_AGENTS_DISABLE_TRACING": "1",
        }
        done = subprocess.run(
            [sys.executable, "-c", _RUN, f"{before}\n{program}"],
            cwd=self._folder,
            env=os.environ | variables,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert not self._model.answers
        return done.stdout


@pytest.fixture
def programs(model: ScriptedModel, tmp_path: Path) -> Programs:
    """What runs the documentation's programs."""
    return Programs(model, tmp_path)


@pytest.fixture
def guide(programs: Programs) -> Callable[..., str]:
    """Run the programs of a guide."""
    return programs.guide
