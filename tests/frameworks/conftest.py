"""Fixtures of the frameworks' tests.

`test_frameworks.py` runs in the project's environment: it starts a server and, in each framework's own environment,
pytest on that framework's folder. There `TORPOR_URL` and `TORPOR_API_KEY` name the server.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest
from tests.frameworks.scripted import ScriptedServer

import torpor

INSIDE = "TORPOR_TESTED_FRAMEWORK"
"""Set in a framework's own environment, to its name."""

if INSIDE not in os.environ:
    collect_ignore_glob = ["*/*"]


@pytest.fixture
def client() -> Iterator[torpor.Client]:
    """A client of the tests' server."""
    with torpor.Client() as client:
        yield client


@pytest.fixture
def conversation() -> str:
    """The id of a new conversation."""
    return f"thread-{uuid.uuid4()}"


@pytest.fixture
def model() -> Iterator[ScriptedServer]:
    """A model behind Anthropic's API that asks for the code that a test gives it."""
    with ScriptedServer() as server:
        yield server
