"""On real gVisor, what people and models know from notebooks works."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.support.conversations import Conversation
from tests.support.sandboxes import LIMITS

from torpor_snapshotter.runtime import Runtime
from torpor_worker.gvisor import GVisorHost

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def machine(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Conversation]:
    folder: Path = tmp_path_factory.mktemp("guest")
    host = GVisorHost(runtime, folder / "sandboxes")
    yield Conversation(await host.start("notebook", LIMITS))
    await host.close()


async def test_user_code_has_no_privilege_and_a_home(machine: Conversation) -> None:
    code = "import os\n(os.getuid(), os.getgid(), os.getcwd(), os.path.expanduser('~'), os.getgroups())"
    assert (await machine.run(code)).value == "(1000, 1000, '/home/user', '/home/user', [])"
    code = "[line.split()[1] for line in open('/proc/self/status') if line.startswith(('CapEff', 'CapPrm', 'CapInh'))]"
    assert (await machine.run(code)).value == str(["0" * 16] * 3)
    assert (
        await machine.run("import torpor\ntorpor.seq(), torpor.replaying()")
    ).value == f"({machine.position - 1}, False)"


async def test_figures_are_shown_with_and_without_show(machine: Conversation) -> None:
    code = (
        "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()\nprint('between')\nplt.figure()\nplt.plot([3]);"
    )
    answer = await machine.run(code)
    assert ["image/png" in display for display in answer.displays] == [True, True]
    assert [output.kind for output in answer.outputs if output.kind == "display" or b"between" in output.data] == [
        "display",
        "stdout",
        "display",
    ]
    assert (await machine.run("plt.get_fignums()")).value == "[]"


async def test_rich_values_have_a_mime_bundle_and_plain_ones_have_none(machine: Conversation) -> None:
    answer = await machine.run("import pandas\npandas.DataFrame({'a': [1]})")
    assert answer.value == "   a\n0  1"
    assert answer.ending is not None
    assert "<table" in answer.ending.data["text/html"]  # type: ignore[union-attr]  # `value` has checked it
    answer = await machine.run("[1, 'two']")
    assert answer.ending.data == {}  # type: ignore[union-attr]  # as above


@pytest.mark.parametrize(
    "code",
    [
        "await later()",
        "asyncio.run(later())",
        "with asyncio.Runner() as runner: print(runner.run(later()))\n'later'",
        "asyncio.get_event_loop().run_until_complete(later())",
        "asyncio.new_event_loop().run_until_complete(later())",
    ],
)
async def test_every_way_into_asyncio_works(machine: Conversation, code: str) -> None:
    await machine.run("import asyncio\nasync def later():\n    await asyncio.sleep(0.01)\n    return 'later'")
    assert (await machine.run(code)).value == "'later'"


async def test_a_bare_task_goes_on_between_instructions(machine: Conversation) -> None:
    await machine.run(
        "import asyncio, time\nasync def tell():\n    await asyncio.sleep(0.05)\n    print('told', flush=True)"
    )
    await machine.run("telling = asyncio.create_task(tell())")
    assert (await machine.partner.ping()).background
    answer = await machine.hear(until="told\n")
    assert all(output.background for output in answer.outputs)
    assert (await machine.run("telling.done()")).value == "True"
    assert not (await machine.partner.ping()).background


async def test_an_interrupted_await_is_no_ghost_in_a_later_cell(machine: Conversation) -> None:
    await machine.run("import asyncio\nghost = []")
    await machine.interrupted("try:\n    await asyncio.sleep(10**9)\nfinally:\n    ghost.append('ended')")
    assert (await machine.run("ghost, len(asyncio.all_tasks())")).value == "(['ended'], 0)"


async def test_children_and_threads_work(machine: Conversation) -> None:
    code = (
        "import multiprocessing, threading\nfrom concurrent.futures import ProcessPoolExecutor\n"
        "def square(n): return n * n\n"
        "with multiprocessing.get_context('fork').Pool(2) as pool: first = pool.map(square, range(3))\n"
        "with ProcessPoolExecutor(2, multiprocessing.get_context('fork')) as pool:\n"
        "    second = list(pool.map(square, range(3)))\n"
        "third = []\nthread = threading.Thread(target=lambda: third.append(9))\nthread.start(); thread.join()\n"
        "first, second, third"
    )
    assert (await machine.run(code)).value == "([0, 1, 4], [0, 1, 4], [9])"


async def test_what_is_defined_in_a_cell_can_be_pickled_and_read_back(machine: Conversation) -> None:
    await machine.run(
        "import dataclasses, inspect, pickle\n@dataclasses.dataclass\nclass Point:\n    x: int\n"
        "def source():\n    return 'mine'"
    )
    assert (await machine.run("pickle.loads(pickle.dumps(Point(3)))")).value == "Point(x=3)"
    assert (await machine.run("inspect.getsource(source)")).value == repr("def source():\n    return 'mine'\n")
    assert (await machine.run("source.__module__, __name__")).value == "('__main__', '__main__')"


async def test_magics_shell_commands_and_the_last_value_work(machine: Conversation) -> None:
    assert (await machine.run("!echo from the shell")).text() == "from the shell\n"
    assert (await machine.run("words = !echo one two\nwords[0]")).value == "'one two'"
    await machine.run("6 * 7")
    assert (await machine.run("_")).value == "42"
    assert "Wall time" in (await machine.run("%time None")).text()


async def test_reseeding_changes_randomness_but_not_what_the_user_seeded(machine: Conversation) -> None:
    async def reseeded(seed: bytes, code: str) -> str | None:
        await machine.partner.reseed(machine.position, seed)
        machine.position += 1
        return (await machine.run(code)).value

    draw = "import random, numpy\n(random.random(), numpy.random.random())"
    await machine.run("import numpy.random")
    first = await reseeded(b"1" * 32, draw)
    assert await reseeded(b"2" * 32, draw) != first
    assert await reseeded(b"1" * 32, draw) == first
    await machine.run("random.seed(7); numpy.random.seed(7)")
    own = await reseeded(b"1" * 32, draw)
    await machine.run("random.seed(7); numpy.random.seed(7)")
    assert await reseeded(b"2" * 32, draw) == own


async def test_many_instructions_leave_nothing_behind(machine: Conversation) -> None:
    size = "import linecache\nint(open('/proc/self/statm').read().split()[1]) * 4096, len(linecache.cache)"
    codes = [
        "def f(n):\n    return n + 1\nprint(f(2))",
        "[1, 2]",
        "1 / 0",
        "def g(:",
        "await asyncio.sleep(0)",
        "x = 'y' * 10_000",
    ]
    for n in range(300):
        await machine.run(codes[n % len(codes)])
    before = (await machine.run(size)).value
    for n in range(3000):
        await machine.run(codes[n % len(codes)])
    after = (await machine.run(size)).value
    (bytes_before, lines_before), (bytes_after, lines_after) = (
        map(int, each.strip("()").split(",")) for each in (before or "", after or "")
    )
    assert bytes_after - bytes_before < 2 << 20
    assert lines_after - lines_before < 10
