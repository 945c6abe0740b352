"""Completions on real gVisor: what IPython finds, and what user code can do to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.support.conversations import Conversation
from tests.support.sandboxes import LIMITS

from torpor_snapshotter.runtime import Runtime
from torpor_worker.gvisor import GVisorHost
from torpor_worker.sandbox import Completion, Sandbox

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def host(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GVisorHost]:
    folder: Path = tmp_path_factory.mktemp("completion")
    host = GVisorHost(runtime, folder / "sandboxes")
    yield host
    await host.close()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def sandbox(host: GVisorHost) -> Sandbox:
    return await host.start("machine", LIMITS)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def machine(sandbox: Sandbox) -> Conversation:
    return Conversation(sandbox)


async def test_names_attributes_and_keys_are_found_in_the_users_namespace(
    machine: Conversation, sandbox: Sandbox
) -> None:
    await machine.run("import math; number = 3; table = {'first': 1, 'second': 2}")
    assert await sandbox.complete("numb", 4) == Completion(("number",), 0, 4)
    assert await sandbox.complete("ü = numb", 8) == Completion(("number",), 4, 8)
    assert await sandbox.complete("x = math.factori\ny = 1", 16) == Completion((".factorial",), 8, 16)
    assert "first" in "".join((await sandbox.complete("table['fi", 9)).matches)
    assert "import" in (await sandbox.complete("impo", 4)).matches
    assert await sandbox.complete("nothing_like_this", 17) == Completion((), 17, 17)
    assert 0 < len((await sandbox.complete("", 0)).matches) <= 200


async def test_while_something_runs_there_is_none_and_what_runs_is_not_disturbed(
    machine: Conversation, sandbox: Sandbox
) -> None:
    running = asyncio.create_task(machine.run("import time; time.sleep(1); 'whole'"))
    await asyncio.sleep(0.3)
    assert (await sandbox.complete("numb", 4)).matches == ()
    assert (await running).value == "'whole'"


LISTINGS = {
    "never ends": "while True: pass",
    "raises": "raise RuntimeError",
    "exits": "raise SystemExit",
    "forks": "import os; os.fork(); return ['a']",
    "is huge": "return ['a%d' % i for i in range(10**6)]",
}


@pytest.mark.parametrize("listing", LISTINGS.values(), ids=LISTINGS)
async def test_objects_that_do_not_want_to_be_looked_at_cost_nothing(
    machine: Conversation, sandbox: Sandbox, listing: str
) -> None:
    await machine.run(f"kept = 41\nclass Hostile:\n    def __dir__(self):\n        {listing}\nhostile = Hostile()")
    assert len((await sandbox.complete("hostile.", 8)).matches) <= 200
    assert (await machine.run("kept + 1")).value == "42"


async def test_a_listing_that_swallows_interrupts_holds_the_next_instruction_until_that_is_killed(
    host: GVisorHost,
) -> None:
    sandbox = await host.start("doomed", LIMITS)
    machine = Conversation(sandbox)
    await machine.run(
        "class Hostile:\n    def __dir__(self):\n        while True:\n"
        "            try:\n                while True: pass\n"
        "            except BaseException: pass\nhostile = Hostile()"
    )
    assert (await sandbox.complete("hostile.", 8)).matches == ()
    asked = asyncio.create_task(machine.run("1"))
    while not asked.done():
        await sandbox.interrupt(1, step="kill")
        await asyncio.sleep(0.1)
    assert "killed" in (await asked).death
