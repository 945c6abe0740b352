"""What `--help` shows as an example is a command line that `torpor` takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import pytest
from typer.main import get_command

from torpor._cli import app

_EXAMPLE = re.compile(r"\[bold\](.*?)\[/bold\]", re.DOTALL)
_REDIRECTED = re.compile(r" \d?[<>] \S+")
_SUBSTITUTED = re.compile(r"\$\((.*?)\)")


def commands(group: Any, *path: str) -> Iterator[tuple[str, Any]]:
    """Each command with its name, those of groups too."""
    context = group.context_class(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield " ".join((*path, name)), command
        if hasattr(command, "list_commands"):
            yield from commands(command, *path, name)


def examples(command: Any) -> Iterator[list[str]]:
    """The arguments of each call of `torpor` in its help; what a shell puts into it is a word."""
    for text in _EXAMPLE.findall(command.help or ""):
        for line in (_SUBSTITUTED.sub("word", text), *_SUBSTITUTED.findall(text)):
            for is_end, part in groupby(shlex.split(_REDIRECTED.sub("", line)), key="|".__eq__):
                words = list(part)
                if not is_end and "torpor" in words:
                    place = words.index("torpor")
                    yield words[place + 1 :] + (["word"] if "xargs" in words[:place] else [])


ROOT = get_command(app)
EXAMPLES = [(name, words) for name, command in [("", ROOT), *commands(ROOT)] for words in examples(command)]


@pytest.mark.parametrize(("name", "words"), EXAMPLES, ids=lambda value: value if isinstance(value, str) else None)
def test_an_example_of_the_help_is_understood(name: str, words: list[str]) -> None:
    command, context = ROOT, None
    while hasattr(command, "resolve_command"):
        context = command.context_class(command, parent=context)
        found, command, words = command.resolve_command(context, words)
        if not words:
            return  # a command that is only named
    assert command.make_context(found, words, parent=context)


def test_there_are_examples_for_what_people_use() -> None:
    shown = {name for name, _ in EXAMPLES}
    assert {"new", "run", "repl", "exec", "sh", "ls", "cp", "log", "fork", "rollback", "tag", "set"} <= shown
