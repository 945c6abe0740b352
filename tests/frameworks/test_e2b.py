"""The shapes of E2B's published interpreter, and ours beside them."""

from __future__ import annotations

import dataclasses
import inspect

import e2b_code_interpreter as e2b
import pytest

import torpor
from torpor.compat import e2b as ours


@pytest.mark.parametrize("name", ["Execution", "ExecutionError", "Logs", "OutputMessage", "Result"])
def test_answers_have_every_field_that_theirs_have(name: str) -> None:
    theirs = {field.name for field in dataclasses.fields(getattr(e2b, name))}
    own = {field.name for field in dataclasses.fields(getattr(ours, name))}
    assert theirs - own == set()


def test_calls_take_the_arguments_that_theirs_take() -> None:
    for method, left_out in (("run_code", {"context"}),):
        theirs = set(inspect.signature(getattr(e2b.Sandbox, method)).parameters) - left_out
        assert theirs - set(inspect.signature(getattr(ours.Sandbox, method)).parameters) == set()


def test_a_result_lists_its_forms_as_theirs_does(client: torpor.Client) -> None:
    sandbox = ours.Sandbox.create(client=client)
    try:
        table = sandbox.run_code("import pandas; pandas.DataFrame({'x': [1]})").results[0]
    finally:
        sandbox.kill()
    theirs = e2b.Result(**{field.name: table[field.name] for field in dataclasses.fields(e2b.Result)})
    assert list(theirs.formats()) == table.formats()
