"""Whoever looks something up finds out how it is used: everything public has an example.

That each of them does what it says is in `tests/acceptance/test_examples.py`.
"""

from __future__ import annotations

import pytest
from tests.support.examples import Documented, documented

import torpor

RECORDS = {
    *(
        "ApiKey",
        "CommandInfo",
        "Completion",
        "ErrorInfo",
        "FileInfo",
        "Instruction",
        "MachineInfo",
        "NewApiKey",
        "Point",
        "Recovered",
        "Rollback",
    ),
    *("Snapshot", "Display", "Error", "Finished", "InputRequest", "Notice", "Stderr", "Stdout"),
}
"""Classes of which one only gets instances, by calls that have examples."""
PUBLIC = [each for each in documented(torpor) if each.name.rpartition(".")[2] not in RECORDS and not each.is_error]


@pytest.mark.parametrize("public", PUBLIC, ids=lambda public: public.name)
def test_everything_public_has_an_example(public: Documented) -> None:
    assert public.text
    assert public.has_example


def test_twins_have_the_same_words() -> None:
    """The same surface, awaited: only examples differ."""
    texts = {public.name: public.text for public in PUBLIC}
    for name, text in texts.items():
        twin = name.replace("torpor.", "torpor.Async", 1)
        if twin in texts and name.count(".") > 1:
            assert words(text) == words(texts[twin]), twin


def words(text: str) -> list[str]:
    lines, in_example = [], False
    for line in text.splitlines():
        in_example = line.lstrip().startswith(">>>") or (in_example and bool(line.strip()))
        if not in_example:
            lines.append(line)
    return " ".join(lines).split()
