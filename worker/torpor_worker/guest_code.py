"""The guest's code: what a new sandbox is given, and by what name it is known."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources

PYTHON = "/usr/bin/python3.13"


@dataclass(frozen=True)
class GuestCode:
    """Modules by name, without the package's; `supervisor` and `interpreter` are where its processes begin."""

    modules: Mapping[str, str]

    @cached_property
    def sha256(self) -> str:
        """Names this code; asked for at every wake."""
        return hashlib.sha256(json.dumps(dict(self.modules), sort_keys=True).encode()).hexdigest()

    def load_body(self, preload: Sequence[str] = ()) -> bytes:
        """The body of a frame that gives it to a loader, with the names of modules to import before it is ready."""
        fields = {"main": "supervisor", "modules": dict(self.modules), "preload": list(preload), "code": self.sha256}
        return json.dumps(fields).encode()


@cache
def own_code() -> GuestCode:
    """The code of the package `torpor_worker.guest`."""
    folder = resources.files("torpor_worker.guest")
    return GuestCode(
        {
            file.name.removesuffix(".py"): file.read_text(encoding="utf-8")
            for file in folder.iterdir()
            if file.name.endswith(".py") and file.name != "__init__.py"
        }
    )


def guest_command(python: str = PYTHON) -> list[str]:
    """The fixed command of every sandbox's init: a loader that waits for the guest's code."""
    return [python, "-I", "-c", own_code().modules["loader"]]
