"""When what was typed is complete. Pure."""

from __future__ import annotations

import ast
import codeop
import warnings


def is_complete(text: str) -> bool:
    """Whether Enter should run it. What no Python can read is complete too: the machine says what is wrong.

    A block is complete after an empty line, as in Python's own prompt.
    """
    last_line = text.rsplit("\n", 1)[-1]
    if not last_line.strip():
        text = text[: len(text) - len(last_line)]
    try:
        return _compiles(text, "single")
    except (SyntaxError, ValueError, OverflowError):
        pass  # more than one statement, or nothing that this Python can read
    try:
        return _compiles(text, "exec") and not last_line[:1].isspace()
    except (SyntaxError, ValueError, OverflowError):
        return True


def _compiles(text: str, mode: str) -> bool:
    compiler = codeop.CommandCompiler()
    compiler.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return compiler(text, "<input>", mode) is not None


def next_indent(text: str) -> str:
    """The spaces that a new line after this text begins with."""
    line = text.rsplit("\n", 1)[-1]
    indent = line[: len(line) - len(line.lstrip())]
    return indent + "    " if line.rstrip().endswith(":") else indent
