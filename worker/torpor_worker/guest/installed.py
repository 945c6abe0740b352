"""What is installed in this machine, and the `pip` that says so instead of trying to download."""

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

PIP_COMMAND = f'''#!/usr/bin/python3.13
import os, runpy, sys

arguments = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
local = any(os.path.exists(argument) for argument in arguments[1:])
if arguments[:1] and arguments[0] in ("install", "download", "wheel", "index", "search") and not local:
    import importlib.metadata

    names = sorted({{str(found.metadata["Name"]) for found in importlib.metadata.distributions()}}, key=str.lower)
    sys.stderr.write(
        "ERROR: pip cannot " + arguments[0] + " anything here. {NO_NETWORK} Installed already: "
        + ", ".join(names) + ".\\n"
    )
    sys.exit(1)
sys.path[:] = [entry for entry in sys.path if not entry.startswith("{SHIMS}")]
for name in [name for name in sys.modules if name == "pip" or name.startswith("pip.")]:
    del sys.modules[name]
os.environ["PIP_NO_INDEX"] = "1"
runpy.run_module("pip", run_name="__main__", alter_sys=True)
'''
