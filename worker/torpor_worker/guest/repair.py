"""Making good what user code did to the things that the agent itself needs."""

from __future__ import annotations

import builtins
import contextlib
import sys
from typing import Any

from .streams import Stream

SENTINELS = ("builtins", "sys", "__main__", "os", "asyncio", "json", "linecache", "IPython", "torpor")
HOOKS = ("excepthook", "displayhook", "unraisablehook", "meta_path", "path_hooks")


class Repairs:
    """Remembers how things were, and puts back what is missing. Patches that do no harm stay."""

    def __init__(self, streams: tuple[Stream, Stream]) -> None:
        self._streams = streams
        self._modules = sys.modules
        self._known = dict(sys.modules)
        self._builtins = dict(vars(builtins))
        self._hooks = {name: getattr(sys, name) for name in HOOKS}
        self._finders: list[tuple[str, list[Any], list[Any]]] = [
            ("meta_path", sys.meta_path, list(sys.meta_path)),
            ("path_hooks", sys.path_hooks, list(sys.path_hooks)),
        ]
        self._recursion_limit = sys.getrecursionlimit()

    def before_instruction(self) -> list[str]:
        """Put back modules and streams that are gone; a sentence for each kind of repair."""
        repaired = []
        if sys.modules is not self._modules or any(name not in self._modules for name in SENTINELS):
            sys.modules = self._modules
            missing = [name for name in self._known if name not in self._modules]
            for name in missing:
                self._modules[name] = self._known[name]
            repaired.append(f"sys.modules had lost {len(missing)} modules; they are back.")
        elif len(self._modules) != len(self._known):
            self._known = dict(self._modules)
        for name, stream in zip(("stdout", "stderr"), self._streams, strict=True):
            current = getattr(sys, name, None)
            if current is not stream and not _can_write(current):
                setattr(sys, name, stream)
                repaired.append(f"sys.{name} could not be written to; it is the machine's own again.")
        return repaired

    def mend(self) -> str:
        """Restore builtins, streams and hooks after a step of the agent's failed; what was restored, or nothing."""
        found = []
        current = vars(builtins)
        changed = [name for name, value in self._builtins.items() if current.get(name, None) is not value]
        if changed:
            current.update(self._builtins)
            found += [f"builtins.{name}" for name in changed[:10]]
        for name, value in self._hooks.items():
            if getattr(sys, name, None) is not value:
                setattr(sys, name, value)
                found.append(f"sys.{name}")
        for name, entries, finders in self._finders:
            if any(finder not in entries for finder in finders):
                entries[:] = finders
                found.append(f"sys.{name}")
        for name, stream in zip(("stdout", "stderr"), self._streams, strict=True):
            if getattr(sys, name, None) is not stream:
                setattr(sys, name, stream)
                found.append(f"sys.{name}")
        if sys.getrecursionlimit() < self._recursion_limit:
            sys.setrecursionlimit(self._recursion_limit)
            found.append("the recursion limit")
        found += self.before_instruction()
        return "Something the machine needs did not work any more; restored: " + ", ".join(found) if found else ""

    def is_users_own(self, error: BaseException) -> bool:
        """Whether it came out of the user's own code, such as a `__repr__`."""
        trace = error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename.startswith("<cell "):
                return True
            trace = trace.tb_next
        return False


def _can_write(stream: object) -> bool:
    with contextlib.suppress(Exception):
        return callable(getattr(stream, "write", None)) and not getattr(stream, "closed", False)
    return False
