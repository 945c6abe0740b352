"""What is installed in this machine, and where the `pip` lies that stands in front of the real one."""

from __future__ import annotations

import functools
import importlib.metadata

NO_NETWORK = "This machine has no network: nothing outside it can be reached, and nothing can be downloaded."


@functools.cache
def installed_sentence() -> str:
    """The names of what is installed."""
    names = sorted(
        {str(distribution.metadata["Name"]) for distribution in importlib.metadata.distributions()}, key=str.lower
    )
    return f"Installed already: {', '.join(names)}."


SHIMS = "/run/torpor"
"""Where in a sandbox our `pip` lies; `bin` of it is first in PATH, `site` in PYTHONPATH."""

PIP_PACKAGE = f'''
import os, sys

_place = next(
    path for path in (os.path.join(entry, "pip") for entry in sys.path if not entry.startswith("{SHIMS}"))
    if os.path.isfile(os.path.join(path, "__init__.py"))
)
__path__.append(_place)
with open(os.path.join(_place, "__init__.py")) as _source:
    exec(compile(_source.read(), _source.name, "exec"))
'''
