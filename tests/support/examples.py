"""Finds the examples of docstrings and pages, runs them, and compares what they say with what they promise."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import doctest
import inspect
import io
import json
import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_FLAGS: Final = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
_FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_VALUE: Final = re.compile(r"""['"\d(\[]|None|True|False""")
_CONSOLE_SECONDS: Final = 120
_MEASURED: Final = re.compile(r"_ms$|_at$|_bytes$")
_MASKS: Final = (
    (re.compile(r"\b[a-z0-9]{16}\b"), "NAME"),
    (re.compile(r"\b\d+ (?:s|min) ago\b"), "AGO"),
    (re.compile(r"\bgeneration \d+"), "generation N"),
)


@dataclass(frozen=True)
class Documented:
    """Something public that has a docstring."""

    name: str
    text: str
    is_error: bool = False

    @property
    def has_example(self) -> bool:
        """Whether an example stands in it."""
        return ">>>" in self.text

    @property
    def asynchronous(self) -> bool:
        """Whether its example is for an event loop."""
        return "await " in self.text or "async " in self.text


def documented(module: Any) -> Iterator[Documented]:
    """A module, the functions and classes that it exports, and their public methods."""
    yield Documented(module.__name__, inspect.getdoc(module) or "")
    for name in module.__all__:
        thing = getattr(module, name)
        if not inspect.isclass(thing) and not inspect.isfunction(thing):
            continue
        is_error = inspect.isclass(thing) and issubclass(thing, BaseException)
        yield Documented(f"{module.__name__}.{name}", inspect.getdoc(thing) or "", is_error)
        if inspect.isclass(thing) and not is_error:
            for method_name, method in vars(thing).items():
                if inspect.isfunction(method) and not method_name.startswith("_"):
                    yield Documented(f"{module.__name__}.{name}.{method_name}", inspect.getdoc(method) or "")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and the text before it, back to the block before."""

    language: str
    text: str
    before: str


def blocks(page: Path) -> list[Block]:
    """A page's blocks in their order."""
    text, found, end = page.read_text(encoding="utf-8"), [], 0
    for match in _FENCE.finditer(text):
        found.append(Block(match[1], match[2], text[end : match.start()]))
        end = match.end()
    return found


class Runner:
    """Runs Python in one event loop, with top-level `await` as in a notebook."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()

    def close(self) -> None:
        """End the loop."""
        self.loop.close()

    def check(self, text: str, names: dict[str, Any]) -> None:
        """Run a block of a page, of either kind."""
        if text.startswith(">>>"):
            self.check_doctest(text, names)
        else:
            self.check_program(text, names)

    def check_doctest(self, text: str, names: dict[str, Any]) -> None:
        """Run examples with `>>>`. Raises AssertionError where what comes out is not what stands there."""
        for example in doctest.DocTestParser().get_examples(text):
            code = compile(example.source, "<example>", "single", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            said, _ = self._run(code, names)
            wanted = example.want
            if example.exc_msg is not None:
                wanted, said = example.exc_msg, said.rpartition("\n  ")[2].partition("\n")[2] or said
            agrees = doctest.OutputChecker().check_output(_timeless(wanted), _timeless(said), _FLAGS)
            assert agrees, f"{example.source}said:\n{said}\ninstead of:\n{wanted}"

    def check_program(self, text: str, names: dict[str, Any]) -> None:
        """Run a program whose comments say what expressions are worth, print, or raise."""
        lines = text.splitlines()
        for statement in ast.parse(text).body:
            last = lines[(statement.end_lineno or statement.lineno) - 1][statement.end_col_offset or 0 :]
            comment = last.partition("#")[2].strip()
            is_value = isinstance(statement, ast.Expr)
            tree = ast.Interactive([statement]) if is_value else ast.Module([statement], [])
            code = compile(tree, "<example>", "single" if is_value else "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            said, error = self._run(code, names)
            if comment.startswith("raises "):
                assert error is not None, f"{ast.unparse(statement)} raises nothing"
                assert comment.split()[1].rpartition(".")[2] == type(error).__name__
                continue
            assert error is None, said
            if is_value and _VALUE.match(comment):
                said = said.strip()
                assert re.match(rf"{re.escape(said)}($|[,;:]| )", comment), f"{ast.unparse(statement)}: {said}"

    def _run(self, code: Any, names: dict[str, Any]) -> tuple[str, Exception | None]:
        written, error = io.StringIO(), None
        displayed, sys.displayhook = sys.displayhook, sys.__displayhook__
        try:
            with contextlib.redirect_stdout(written):
                if code.co_flags & inspect.CO_COROUTINE:
                    self.loop.run_until_complete(eval(code, names))
                else:
                    exec(code, names)
        except Exception as raised:
            error = raised
            written.write("".join(traceback.format_exception_only(raised)))
        finally:
            sys.displayhook = displayed
        return written.getvalue(), error


class Console:
    """Runs the commands of blocks of a page, one life of machines long: names in it stand for those that come out."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self._environment = dict(environment)
        self._folder = folder
        self._names: dict[str, str] = {}

    def translate(self, text: str) -> str:
        """The text with the real names of machines."""
        for name, real in self._names.items():
            text = text.replace(name, real)
        return text

    def check(self, block: Block, skip: Callable[[str], bool] = lambda _: False) -> None:
        """Run each line after `$`. Raises AssertionError where it says something else."""
        for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            command, _, wanted = part.partition("\n")
            if not skip(command):
                self._check(command, wanted)

    def _check(self, command: str, wanted: str) -> None:
        done = subprocess.run(
            ["bash", "-c", self.translate(command)],
            env=self._environment,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_CONSOLE_SECONDS,
            check=False,
        )
        said = done.stdout
        if re.fullmatch(r"[a-z0-9]{16}", wanted.strip()) and re.fullmatch(r"[a-z0-9]{16}", said.strip()):
            self._names[wanted.strip()] = said.strip()
        if (made := _machine_in(wanted)) and (real := _machine_in(said)):
            self._names.setdefault(made, real)
        assert _alike(self.translate(wanted)) == _alike(said), f"$ {command}\n{said}\ninstead of:\n{wanted}"


def _timeless(text: str) -> str:
    return re.sub(r"runtime_ms=\d+", "runtime_ms=1", text)


def _machine_in(line: str) -> str | None:
    try:
        answer = json.loads(line)
    except ValueError:
        return None
    return answer.get("machine_name") if isinstance(answer, dict) else None


def _alike(text: str) -> Any:
    """What two runs of the same have in common: without times, sizes, and names that differ."""
    try:
        return _masked(json.loads(text))
    except ValueError:
        pass
    for pattern, word in _MASKS:
        text = pattern.sub(word, text)
    return text.strip().splitlines()


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: type(part).__name__ if _MEASURED.search(name) and part is not None else _masked(part)
            for name, part in value.items()
        }
    return [_masked(part) for part in value] if isinstance(value, list) else value
