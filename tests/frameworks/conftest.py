"""What the frameworks' tests share. It runs in each framework's environment, beside nothing of ours but the SDK."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

import torpor

_COUNTER = itertools.count()


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
def later(request: pytest.FixtureRequest, client: torpor.Client, conversation: str) -> Callable[..., str]:
    """Let the conversation's machine sleep, and run `later(conversation, ...)` of the test in a new process."""

    def run(*more: str) -> str:
        client.machine(conversation, create=False).sleep()
        code = f"import runpy; print(runpy.run_path({str(request.path)!r})['later'](*{(conversation, *more)!r}))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip().splitlines()[-1]

    return run


class ScriptedModel:
    """A server that a model's real client library talks to: it answers what a test says, and keeps what it gets."""

    def __init__(self) -> None:
        self.answers: list[dict[str, Any]] = []
        self.requests: list[dict[str, Any]] = []
        model = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                model.requests.append(json.loads(body))
                answer = json.dumps(model.answers.pop(0)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

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
