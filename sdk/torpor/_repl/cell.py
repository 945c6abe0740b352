"""When what was typed is a whole cell, by IPython's rules. Pure."""

from __future__ import annotations

import ast
import codeop
import io
import re
import tokenize
import warnings

_INDENT = "    "
_SPECIAL_LINE = re.compile(
    r"""(?P<indent>\s*)
        (?: [!%?] .*                                     # !command, %magic, ?object
          | [A-Za-z_][\w.]* (?:\s*,\s*[\w.]+)* \s*=\s* (?:!|%[A-Za-z_]) .*   # files = !ls, x = %magic
          | [A-Za-z_%*][\w.*\[\]'"]* \s* \?\??           # object?, object??
        )\s*$""",
    re.VERBOSE,
)
_LEAVES_BLOCK = re.compile(r"\s*(return|pass|raise|break|continue)\b")


def is_complete(text: str) -> bool:
    """Whether Enter should run it. What no Python can read is complete too: the machine says what is wrong.

    A block whose last line is indented is complete after an empty line; so is a cell magic (`%%bash`).
    """
    last_line = text.rsplit("\n", 1)[-1]
    if text.lstrip().startswith("%%"):
        return "\n" in text and not last_line.strip()
    if last_line.endswith("\\"):
        return False
    if not last_line.strip():
        text = text[: len(text) - len(last_line)]
    text = as_python(text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _compiles(text) and not (last_line.strip() and last_line[0].isspace() and _ends_in_block(text))
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
        return True


def as_python(text: str) -> str:
    """The same with `pass` for each line that only IPython understands: `!`, `%`, `?`; what they continue to is one."""
    lines: list[str] = []
    continues = False
    for line in text.split("\n"):
        if continues:
            continues = line.endswith("\\")
            continue
        special = _SPECIAL_LINE.fullmatch(line.removesuffix("\\"))
        if special is not None and _begins_statement("\n".join(lines)):
            lines.append(f"{special['indent']}pass")
            continues = line.endswith("\\")
        else:
            lines.append(line)
    return "\n".join(lines)


def _begins_statement(before: str) -> bool:
    """Whether a line after these would begin a statement, and not stand in a string or in brackets."""
    try:
        for _ in tokenize.generate_tokens(io.StringIO(f"{before}\n").readline):
            pass
    except tokenize.TokenError:
        return False
    except SyntaxError:
        pass  # of indentation
    return not before.endswith("\\")


def _compiles(text: str) -> bool:
    compiler = codeop.CommandCompiler()
    compiler.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    return compiler(text, "<input>", "exec") is not None


def _ends_in_block(text: str) -> bool:
    statements = compile(text, "<input>", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT).body
    return bool(statements) and any(hasattr(statements[-1], name) for name in ("body", "cases"))


def next_indent(text: str) -> str:
    """The spaces that a new line after this text begins with."""
    line = text.rsplit("\n", 1)[-1]
    indent = line[: len(line) - len(line.lstrip())]
    if line.rstrip().endswith(":") and not line.lstrip().startswith(("!", "%", "#")):
        return indent + _INDENT
    return indent.removesuffix(_INDENT) if _LEAVES_BLOCK.match(line) else indent
