"""What a model is told."""

from __future__ import annotations

from typing import Any, Final

INSTRUCTIONS: Final = (
    "You have a Python computer that is always there. The tool `python` runs code on it like a notebook's cell: "
    "variables, imports, files and processes stay from call to call, today and in years; nothing needs to be started, "
    "saved or loaded again. You get what it prints, the value of the last line, and figures. After an error everything "
    "before it still holds: fix and go on. There is no network. A notice says if anything was lost."
)
"""For a system prompt; at most 80 words."""

DESCRIPTION: Final = (
    "Run Python code on a computer that keeps everything: variables, imports, files and processes are still there in "
    "the next call, however late that comes. Like a notebook's cell: the last expression's value is shown, top-level "
    "await works, Matplotlib figures are returned as images. NumPy, SciPy, pandas, Matplotlib, scikit-learn, SymPy and "
    "Pillow are installed; there is no network."
)
"""Of the tool `python`."""

PARAMETERS: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "code": {"type": "string", "description": "Python code. The value of its last expression is shown."},
        "timeout_seconds": {
            "type": ["number", "null"],
            "description": "After so much running time it is ended, and everything else stays; 15 by default. "
            "More for long work, up to 3600.",
        },
    },
    "required": ["code", "timeout_seconds"],
    "additionalProperties": False,
}
"""JSON schema of the arguments, as strict schemas have it: each is named, and null means the default."""
