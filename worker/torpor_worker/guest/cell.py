"""One cell: from source to code objects, and running them."""

from __future__ import annotations

import ast
import builtins
import inspect
import linecache
import sys
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from types import CodeType
from typing import Any


class _Reference(weakref.ref[CodeType]):
    """A weak reference to a code object that knows its cell."""

    __slots__ = ("cell",)
    cell: str


_alive: dict[str, set[_Reference]] = {}
"""For each cell whose source is kept, its code objects."""
_dead: deque[_Reference] = deque()
"""Code objects that are gone. Filled by a callback that is no Python code, as an interrupt would get lost in one."""


class _Hooks:
    """The user's trace and profile functions while none of the user's code runs."""

    trace: Any = None
    profile: Any = None


_hooks = _Hooks()


class Cell:
    """The code of one instruction, compiled. Raises what is wrong with the source."""

    def __init__(self, shell: Any, source: str, seq: int) -> None:
        _forget_dead()
        self._shell = shell
        name = f"<cell {seq}>"
        _alive[name] = set()
        try:
            tree = shell.transform_ast(self._parse(source, name))
            body = tree.body
            last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
            self.shows = last is not None and not source.rstrip().endswith(";")
            self._codes: list[CodeType] = []
            with shell.compile.extra_flags(ast.PyCF_ALLOW_TOP_LEVEL_AWAIT):
                if body:
                    self._codes.append(shell.compile(tree, name, "exec"))
                if last is not None:
                    self._codes.append(shell.compile(ast.Expression(last.value), name, "eval"))
            for code in self._codes:
                _watch(name, code)
        finally:
            if not _alive[name]:
                del _alive[name]
                linecache.cache.pop(name, None)

    def _parse(self, source: str, name: str) -> ast.Module:
        shell = self._shell
        if shell.has_own_transformers_only():
            # Plain Python needs no transformation: that is what most cells are, and the transformation is slow.
            try:
                tree: ast.Module = shell.compile.ast_parse(source, name)
            except (SyntaxError, ValueError):
                pass
            else:
                _keep_source(name, source)
                return tree
        transformed = shell.transform_cell(source)
        _keep_source(name, transformed)
        parsed: ast.Module = shell.compile.ast_parse(transformed, name)
        return parsed

    def run(self, run_coroutine: Callable[[Coroutine[Any, Any, Any]], Any]) -> Any:
        """Run it; what its last statement, an expression, gave."""
        value = None
        namespace = self._shell.user_ns
        if "__builtins__" not in namespace:
            namespace["__builtins__"] = builtins  # else eval puts the agent's own there
        for code in self._codes:
            try:
                if _hooks.trace is not None or _hooks.profile is not None:
                    sys.setprofile(_hooks.profile)
                    sys.settrace(_hooks.trace)
                value = eval(code, namespace)  # noqa: S307  # this is what the sandbox is for
            finally:  # a trace function that raises must not do so in the agent's code: nothing is called before this
                try:
                    _hooks.profile = sys.getprofile()
                    sys.setprofile(None)
                except BaseException:  # a profile function that raises; it is gone then
                    _hooks.profile = None
                _hooks.trace = sys.gettrace()
                sys.settrace(None)
            if code.co_flags & inspect.CO_COROUTINE:
                value = run_coroutine(value)
        return value


def _keep_source(name: str, source: str) -> None:
    linecache.cache[name] = (len(source), None, [line + "\n" for line in source.splitlines()], name)


def _watch(name: str, code: CodeType) -> None:
    codes = [code]
    while codes:
        code = codes.pop()
        reference = _Reference(code, _dead.append)
        reference.cell = name
        _alive[name].add(reference)
        codes.extend(constant for constant in code.co_consts if isinstance(constant, CodeType))


def _forget_dead() -> None:
    while _dead:
        reference = _dead.popleft()
        alive = _alive.get(reference.cell)
        if alive is not None:
            alive.discard(reference)
            if not alive:
                del _alive[reference.cell]
                linecache.cache.pop(reference.cell, None)


def is_internal(filename: str) -> bool:
    """Whether a frame is the agent's or IPython's, and nothing to show to the user."""
    return filename.startswith("<torpor_guest") or "/IPython/core/" in filename or filename == sys.orig_argv[0]
