"""Which machine a notebook runs on."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath

SESSION_NAME = "JPY_SESSION_NAME"
"""Where Jupyter's server tells a kernel the path of its notebook."""
MACHINE = "TORPOR_MACHINE"
"""A machine's name for every kernel that is started with it."""

_LETTERS = 24


@dataclass(frozen=True)
class Binding:
    """The name of a notebook's machine, and why it has it."""

    name: str | None
    """None: a new machine for each kernel, since nothing says which notebook this is."""
    notebook: str | None = None
    """Its path, if that is what the name comes from."""


def binding_of(environment: Mapping[str, str] = os.environ) -> Binding:
    """The machine that the environment of a kernel asks for."""
    if name := environment.get(MACHINE):
        return Binding(name)
    if path := environment.get(SESSION_NAME):
        return Binding(alias_of(path), path)
    return Binding(None)


def alias_of(path: str) -> str:
    """A name for the machine of the notebook at this path: readable, and different for every path."""
    stem = re.sub(r"[^A-Za-z0-9]+", "-", PurePath(path).stem).strip("-")[:_LETTERS].strip("-")
    digest = hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return f"notebook-{stem}-{digest}" if stem else f"notebook-{digest}"
