"""What a command says of itself, read from its source: a list of commands imports none of them."""

from __future__ import annotations

import ast
import inspect
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint
from pathlib import Path


def help_of(entry: EntryPoint) -> str | None:
    """The docstring of the one command, or of the callback, that a module gives its Typer app; None if it is not plain.

    Packages on the way are not imported either.
    """
    source = _source_of(entry.module)
    if source is None:
        return None
    try:
        tree = ast.parse(source.read_bytes())
    except (OSError, ValueError, SyntaxError):
        return None
    given = [text for statement in tree.body if (text := _given_help(statement, entry.attr)) is not None]
    texts = given or _docstrings(tree, entry.attr, "callback") or _docstrings(tree, entry.attr, "command")
    return inspect.cleandoc(texts[0]) if len(texts) == 1 and texts[0] else None


def _given_help(statement: ast.stmt, app: str) -> str | None:
    """What `app = typer.Typer(help="...")` says."""
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(keywords=keywords)) if name == app:
            values = [keyword.value for keyword in keywords if keyword.arg == "help"]
            return next((str(value.value) for value in values if isinstance(value, ast.Constant)), None)
    return None


def _docstrings(tree: ast.Module, app: str, kind: str) -> list[str | None]:
    """Those of the functions below `@app.command(...)`, or `@app.callback(...)`."""
    return [
        ast.get_docstring(function)
        for function in tree.body
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for decorator in function.decorator_list
        if _is_of(decorator, app, kind)
    ]


def _is_of(decorator: ast.expr, app: str, kind: str) -> bool:
    match decorator:
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=called)):
            return name == app and called == kind
    return False


def _source_of(module: str) -> Path | None:
    top, *rest = module.split(".")
    package = PathFinder.find_spec(top)
    if package is None or package.submodule_search_locations is None:
        return None
    for folder in package.submodule_search_locations:
        path = Path(folder).joinpath(*rest).with_suffix(".py")
        if rest and path.is_file():
            return path
    return None
