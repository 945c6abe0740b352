"""What is installed in this machine, and the `pip` that says so instead of trying to download."""

from __future__ import annotations

import functools
import importlib.metadata


@functools.cache
def installed_sentence() -> str:
    """The names of what is installed."""
    names = sorted(
        {str(distribution.metadata["Name"]) for distribution in importlib.metadata.distributions()}, key=str.lower
    )
    return f"Installed already: {', '.join(names)}."


PIP = '''#!/usr/bin/python3.13
"""Stands before the real pip: says at once that nothing can be downloaded, and leaves the rest to it."""
import os, runpy, sys

here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") not in (here, os.path.join(here, "bin"))]
arguments = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
local = any(os.path.exists(argument) for argument in arguments[1:])
if arguments[:1] and arguments[0] in ("install", "download", "wheel", "index", "search") and not local:
    import importlib.metadata

    names = sorted({str(found.metadata["Name"]) for found in importlib.metadata.distributions()}, key=str.lower)
    sys.stderr.write(
        "ERROR: pip cannot " + arguments[0] + " anything here. This machine has no network: nothing outside it can be "
        "reached, and nothing can be downloaded. Installed already: " + ", ".join(names) + ".\\n"
    )
    sys.exit(1)
for name in [name for name in sys.modules if name == "pip" or name.startswith("pip.")]:
    del sys.modules[name]
os.environ["PIP_NO_INDEX"] = "1"
runpy.run_module("pip", run_name="__main__", alter_sys=True)
'''
