"""Templates on real gVisor: what machines start from, and that clones share no randomness."""

import asyncio
import secrets
from pathlib import Path

import pytest
from tests.support.conversations import Conversation
from tests.support.sandboxes import LIMITS, run

from torpor_snapshotter.archive import Archive, ParentKey
from torpor_snapshotter.folder_store import FolderStore
from torpor_snapshotter.keys import FolderKeyStore
from torpor_worker.gvisor import GVisorHost
from torpor_worker.sandbox import Sandbox
from torpor_worker.templates import MODULES, PYTHON, Templates

pytestmark = pytest.mark.integration

RANDOM = """
import os, random, tempfile, uuid
(random.random(), os.urandom(8), uuid.uuid4().hex, uuid.uuid1().hex, __import__("secrets").token_hex(8))
"""
NUMPY_RANDOM = """
import numpy, random
(numpy.random.rand(), random.random(), numpy.random.default_rng().random())
"""

PLOT = """
import matplotlib.pyplot as plt
import pandas
plt.plot([1, 2])
pandas.Series([1, 2]).sum()
"""


def said_by_both(one: str | None, other: str | None) -> set[str]:
    """Items of two tuples that are in both."""
    assert one is not None
    assert other is not None
    return set(one.strip("()").split(", ")) & set(other.strip("()").split(", "))


@pytest.fixture
async def templates(host: GVisorHost, folder: Path) -> Templates:
    """No template is there yet."""
    templates = Templates(folder / "templates", host)
    await templates.prepare()
    return templates


async def two_machines(templates: Templates, name: str) -> tuple[Sandbox, Sandbox]:
    """Restored from one template at once, each reseeded as a machine's entry 0 does it."""
    one, other = await asyncio.gather(*(templates.restore(name, machine, LIMITS) for machine in ("one", "other")))
    for sandbox in (one, other):
        await sandbox.reseed(0, secrets.token_bytes(32))
    return one, other


async def test_two_machines_from_one_template_share_no_randomness(templates: Templates) -> None:
    await templates.make(PYTHON)
    one, other = [await run(sandbox, 1, RANDOM) for sandbox in await two_machines(templates, PYTHON)]
    assert not said_by_both(one, other)


async def test_the_data_template_has_imported_what_it_promises_and_named_nothing(templates: Templates) -> None:
    await templates.make("data")
    one, other = await two_machines(templates, "data")
    modules = list(MODULES["data"])
    assert await run(one, 1, f"import sys; [name for name in {modules} if name not in sys.modules]") == "[]"
    assert await run(one, 2, "[name for name in dir() if 'np' in name or 'numpy' in name or 'pandas' in name]") == "[]"
    first, second = await run(one, 3, NUMPY_RANDOM), await run(other, 1, NUMPY_RANDOM)
    assert not said_by_both(first, second)
    assert await run(other, 2, PLOT) == "np.int64(3)"
    assert not (await one.ping()).background


async def test_nothing_stays_of_a_rehearsal(templates: Templates) -> None:
    await templates.make(PYTHON)
    rehearsed = await templates.restore_ahead(PYTHON)
    plain = await templates.restore(PYTHON, "machine", LIMITS)
    assert await rehearsed.ping() == await plain.ping()
    visible = "import linecache, sys, torpor; torpor.seq(), dir(), sorted(linecache.cache), sorted(sys.modules)"
    answers = []
    for sandbox in (rehearsed, plain):
        talk = Conversation(sandbox)
        answer = await talk.run(visible)
        assert answer.text() == answer.text("stderr") == ""
        assert not answer.notices
        answers.append(answer.value)
    assert answers[0] == answers[1]


async def test_a_template_is_used_again_after_a_restart(templates: Templates, host: GVisorHost, folder: Path) -> None:
    await templates.make(PYTHON)
    (folder / "templates" / "half-made").mkdir()
    again = Templates(folder / "templates", host)
    await again.prepare()
    assert PYTHON in again
    assert again.version(PYTHON) == templates.version(PYTHON)
    assert [place.name for place in (folder / "templates").iterdir()] == [again.image(PYTHON).parent.parent.name]
    sandbox = await again.restore(PYTHON, "machine", LIMITS)
    assert await run(sandbox, 0, "1 + 1") == "2"


async def test_a_snapshot_on_a_template_adds_little_and_comes_back_without_the_template(
    templates: Templates, folder: Path, host: GVisorHost
) -> None:
    await templates.make(PYTHON)
    store, keys = FolderStore(folder / "store"), FolderKeyStore(folder / "keys")
    archive = Archive(store, keys)
    try:
        whole = await archive.store(
            templates.image(PYTHON), "templates/template-1/image", {"machine": "template-1", "generation": 0}
        )
        sandbox = await templates.restore(PYTHON, "machine", LIMITS)
        assert await run(sandbox, 0, "a = 'kept'") is None
        await sandbox.checkpoint(folder / "first")
        parent = ParentKey(whole.key, whole.sha256, templates.image(PYTHON))
        first = await archive.store(folder / "first", "machines/m/0-1", {"machine": "m", "generation": 0}, parent)
        assert first.stored_bytes < whole.stored_bytes / 5
        assert set(first.packs) & set(whole.packs)
        await archive.destroy_key("template-1")
        await store.delete(whole.key)
        await archive.fetch(first.key, first.sha256, folder / "again")
    finally:
        await archive.close()
    woken, _ = await host.restore("machine", folder / "again", LIMITS)
    assert await run(woken, 1, "a") == "'kept'"
