"""The protocol as a model: every promise is kept in every state, and without any one of its conditions some is not."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from docs.protocol import asking, beside, contents, keeping, running
from docs.protocol.checker import Step, check
from docs.protocol.sizes import ASKING, BESIDE, CONDITIONS, CONTENTS, KEEPING, RUNNING, Condition, check_without

ROOT = Path(__file__).parents[2]
README = (ROOT / "docs" / "protocol" / "README.md").read_text()
NAMED = re.compile(r"Conditions? of docs/protocol[^:]*:([A-Z_,\s]+)\.")
CODE = re.compile(r"`((?:api|worker)/[\w/]+\.py)::([\w.]+)`")


@pytest.mark.parametrize("size", RUNNING, ids=str)
def test_whatever_dies_while_a_machine_runs_every_promise_is_kept(size: running.Size) -> None:
    report = check(running.Running(size))
    assert (report.problem, report.trace) == (None, [])


@pytest.mark.parametrize("size", KEEPING, ids=str)
def test_whatever_dies_while_snapshots_come_and_go_every_promise_is_kept(size: keeping.Size) -> None:
    report = check(keeping.Keeping(size))
    assert (report.problem, report.trace) == (None, [])


@pytest.mark.parametrize("size", BESIDE, ids=str)
def test_whatever_dies_while_commands_run_and_code_reads_every_promise_is_kept(size: beside.Size) -> None:
    report = check(beside.Beside(size))
    assert (report.problem, report.trace) == (None, [])


@pytest.mark.parametrize("size", CONTENTS, ids=str)
def test_whatever_dies_what_files_need_to_be_written_again_is_kept_and_nothing_else(size: contents.Size) -> None:
    report = check(contents.Kept(size))
    assert (report.problem, report.trace) == (None, [])


@pytest.mark.parametrize("size", ASKING, ids=str)
def test_whatever_dies_and_is_published_what_was_installed_is_installed_again(size: asking.Size) -> None:
    report = check(asking.Asking(size))
    assert (report.problem, report.trace) == (None, [])


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda condition: condition.name)
def test_without_this_condition_a_promise_is_broken(condition: Condition) -> None:
    assert check_without(condition).problem is not None


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda condition: condition.name)
def test_the_page_says_where_the_code_has_this_condition(condition: Condition) -> None:
    [row] = [line for line in README.splitlines() if line.startswith(f"| {condition.name} ")]
    assert f"| {condition.value} |" in row
    places = CODE.findall(row)
    assert places
    for file, name in places:
        assert name in _functions(ROOT / file), f"{file} has no {name}"


def test_the_code_names_only_conditions_that_there_are() -> None:
    names = {condition.name for condition in CONDITIONS}
    assert len(names) == len(CONDITIONS)
    for file in (path for role in ("api", "worker") for path in (ROOT / role).rglob("*.py")):
        for said in NAMED.findall(file.read_text()):
            assert set(re.findall(r"\b[A-Z_]{4,}\b", said)) <= names, file


class _Counting:
    """Counts to 3, and breaks, or never gets there, if told so."""

    def __init__(self, *, breaks_at: int = -1, stops_at: int = -1) -> None:
        self._breaks_at = breaks_at
        self._stops_at = stops_at

    def initial(self) -> list[int]:
        return [0]

    def steps(self, state: int) -> list[Step[int]]:
        onward = [Step("one more", state + 1, harm=state == self._stops_at)] if state < 3 else []
        return [*onward, Step("nothing", state)]

    def broken(self, state: int) -> str | None:
        return "counted too far" if state == self._breaks_at else None

    def settled(self, state: int) -> bool:
        return state == 3


def test_the_checker_finds_the_shortest_way_to_what_is_broken() -> None:
    report = check(_Counting(breaks_at=2))
    assert (report.problem, report.trace) == ("counted too far", ["one more", "one more"])


def test_the_checker_finds_states_that_only_harm_leads_on_from() -> None:
    assert check(_Counting()).problem is None
    report = check(_Counting(stops_at=1))
    assert report.problem is not None
    assert report.trace == []


def _functions(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            methods = (item.name for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef))
            names |= {f"{node.name}.{name}" for name in methods}
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
    return names
