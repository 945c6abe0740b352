"""Forks of real machines: each draws numbers of its own, and its first wake is one restore."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.support.server import ServerProcess

import torpor

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]

DRAWN = """
import os, random, secrets, ssl, threading, uuid
import numpy as np

def elsewhere(draw):
    drawn = []
    thread = threading.Thread(target=lambda: drawn.append(draw()))
    thread.start()
    thread.join()
    return drawn[0]

def draw():
    return {
        'random': random.random(),
        'random.choices': random.choices(range(1000), k=9),
        'np.random': float(np.random.random()),
        'np.random.normal': float(np.random.normal()),
        'a new default_rng': float(np.random.default_rng().random()),
        'a new Random': random.Random().random(),
        'ssl.RAND_bytes': ssl.RAND_bytes(16).hex(),
        'ssl.RAND_bytes in a thread': elsewhere(lambda: ssl.RAND_bytes(16).hex()),
        'os.urandom': os.urandom(16).hex(),
        'secrets': secrets.token_hex(16),
        'uuid1': uuid.uuid1().hex,
        'uuid4': uuid.uuid4().hex,
    }
"""
SEEDED = {"random", "random.choices", "np.random", "np.random.normal"}
"""What numbers follow from `random.seed` and `np.random.seed`."""


def value(machine: torpor.Machine, code: str) -> str | None:
    return machine.run(code, timeout_seconds=120).raise_for_error().value


def drawn(machine: torpor.Machine) -> dict[str, Any]:
    numbers: dict[str, Any] = ast.literal_eval(value(machine, "draw()") or "")
    return numbers


@pytest.fixture
def client(server: ServerProcess) -> Iterator[torpor.Client]:
    with torpor.Client(url=server.url, api_key=server.api_key) as client:
        yield client


@pytest.mark.parametrize(
    ("seeding", "equal"), [("", set()), ("random.seed(7); np.random.seed(7)", SEEDED)], ids=["unseeded", "seeded"]
)
def test_eight_forks_draw_different_numbers_but_where_code_has_seeded_them(
    client: torpor.Client, seeding: str, equal: set[str]
) -> None:
    machine = client.new_machine()
    value(machine, f"{DRAWN}\n{seeding}\ndraw(), draw()")
    forks = machine.fork(count=8)
    with ThreadPoolExecutor(9) as pool:
        numbers = list(pool.map(drawn, [machine, *forks]))
    for name in numbers[0]:
        different = {repr(one[name]) for one in numbers}
        assert len(different) == (1 if name in equal else 9), (name, different)


def test_the_first_wake_of_a_fork_reads_nothing_from_the_store(client: torpor.Client, server: ServerProcess) -> None:
    machine = client.new_machine()
    value(machine, "things = [bytes(10_000_000), 1]")
    forks = machine.fork(count=20)
    machine.delete()
    waked = [fork.run("things[1]", timings=True) for fork in forks[:3]]
    assert [result.value for result in waked] == ["1"] * 3
    assert [result.timings["wake"]["fetch"] + result.timings["wake"]["assemble"] < 0.005 for result in waked] == [
        True
    ] * 3

    server.restart()
    assert forks[3].run("things[1]", timings=True).timings["wake"]["fetch"] < 0.005
    pages = server.data_dir / "images" / forks[4].name / "0" / "image" / "pages.img"
    content = pages.read_bytes()
    pages.unlink()
    pages.write_bytes(content[: len(content) // 2])
    assert value(forks[4], "things[1]") == "1"
    assert value(forks[19], "things[1]") == "1"
