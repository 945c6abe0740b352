"""One cell: from source to code objects, and running them."""

from __future__ import annotations

import ast
import inspect
import linecache
import sys
import weakref
from collections.abc import Callable, Coroutine
from types import CodeType
from typing import Any

_alive: dict[str, set[weakref.ref[CodeType]]] = {}
"""For each cell whose source is kept, its code objects."""


class _Hooks:
    """The user's trace and profile functions while none of the user's code runs."""

    trace: Any = None
    profile: Any = None


_hooks = _Hooks()


class Cell:
    """The code of one instruction, compiled. Raises what is wrong with the source."""

    def __init__(self, shell: Any, source: str, seq: int) -> None:
        self._shell = shell
        name = f"<cell {seq}>"
        transformed = shell.transform_cell(source)
        lines = transformed.splitlines(keepends=True)
        linecache.cache[name] = (len(transformed), None, lines, name)
        _alive[name] = set()
        try:
            tree = shell.transform_ast(shell.compile.ast_parse(transformed, name))
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
                del linecache.cache[name]

    def run(self, run_coroutine: Callable[[Coroutine[Any, Any, Any]], Any]) -> Any:
        """Run it; what its last statement, an expression, gave."""
        value = None
        for code in self._codes:
            try:
                if _hooks.trace is not None or _hooks.profile is not None:
                    sys.setprofile(_hooks.profile)
                    sys.settrace(_hooks.trace)
                value = eval(code, self._shell.user_ns)  # noqa: S307  # this is what the sandbox is for
            finally:  # a trace function that raises must not do so in the agent's code: nothing is called before this
                try:
                    _hooks.profile = sys.getprofile()
                    sys.setprofile(None)
                except BaseException:  # noqa: BLE001  # a profile function that raises; it is gone then
                    _hooks.profile = None
                _hooks.trace = sys.gettrace()
                sys.settrace(None)
            if code.co_flags & inspect.CO_COROUTINE:
                value = run_coroutine(value)
        return value


def _watch(name: str, code: CodeType) -> None:
    alive = _alive[name]

    def gone(reference: weakref.ref[CodeType]) -> None:
        alive.discard(reference)
        if not alive and _alive.get(name) is alive:
            del _alive[name]
            linecache.cache.pop(name, None)

    codes = [code]
    while codes:
        code = codes.pop()
        alive.add(weakref.ref(code, gone))
        codes.extend(constant for constant in code.co_consts if isinstance(constant, CodeType))


def is_internal(filename: str) -> bool:
    """Whether a frame is the agent's or IPython's, and nothing to show to the user."""
    return filename.startswith("<torpor_guest") or "/IPython/core/" in filename or filename == sys.orig_argv[0]
