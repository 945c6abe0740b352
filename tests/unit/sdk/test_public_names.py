"""What `import torpor` offers."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

import torpor


def test_every_public_name_is_there_and_in_no_module_twice_as_something_else() -> None:
    for name in torpor.__all__:
        found = getattr(torpor, name)
        homes = [getattr(import_module(f"torpor.{home}"), name, found) for home in torpor._HOMES]
        assert all(one is found for one in homes), name
    assert set(torpor.__all__) <= set(dir(torpor))


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'torpor' has no attribute 'Sandbox'"):
        torpor.Sandbox  # type: ignore[attr-defined]  # noqa: B018


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    code = "import torpor, sys; print('httpx2' in sys.modules); torpor.Client; print('httpx2' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == "False\nTrue\n"
