"""One cell: from source to code objects, and running them."""

from __future__ import annotations

import ast
import inspect
import linecache
from collections.abc import Callable, Coroutine
from typing import Any

FLAGS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


class Cell:
    """The code of one instruction, compiled. Raises what is wrong with the source."""

    def __init__(self, shell: Any, source: str, seq: int) -> None:
        self._shell = shell
        name = f"<cell {seq}>"
        transformed = shell.transform_cell(source)
        lines = transformed.splitlines(keepends=True)
        linecache.cache[name] = (len(transformed), None, lines, name)
        tree = shell.transform_ast(shell.compile.ast_parse(transformed, name))
        body = tree.body
        last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
        self.shows = last is not None and not source.rstrip().endswith(";")
        self._codes = []
        if body:
            self._codes.append(shell.compile(tree, name, "exec") if False else compile(tree, name, "exec", FLAGS))
        if last is not None:
            self._codes.append(compile(ast.Expression(last.value), name, "eval", FLAGS))

    def run(self, run_coroutine: Callable[[Coroutine[Any, Any, Any]], Any]) -> Any:
        """Run it; what its last statement, an expression, gave."""
        value = None
        for code in self._codes:
            value = eval(code, self._shell.user_ns)
            if code.co_flags & inspect.CO_COROUTINE:
                value = run_coroutine(value)
        return value
