"""What a server needs is what its distribution asks for, not what else a developer has."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


def required(requirement: Requirement, found: set[tuple[str, str]]) -> None:
    """Add what a requirement brings along, with its extras: as pip would, from what is installed."""
    for extra in ("", *requirement.extras):
        place = (canonicalize_name(requirement.name), extra)
        if place not in found:
            found.add(place)
            for line in requires(requirement.name) or ():
                of = Requirement(line)
                if of.marker is None or of.marker.evaluate({"extra": extra}):
                    required(of, found)


def of_a_server() -> set[str]:
    """Every distribution that is there after `scripts/setup` without `--dev`."""
    found: set[tuple[str, str]] = set()
    for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]:
        required(Requirement(line), found)
    return {"torpor-server", *(name for name, _ in found)}


def test_what_is_mounted_on_a_server_comes_with_it() -> None:
    ours = of_a_server()
    others = {
        package
        for package, distributions in packages_distributions().items()
        if not any(canonicalize_name(name) in ours for name in distributions)
    }
    assert "pytest" in others
    program = textwrap.dedent(f"""
        import sys
        sys.modules |= dict.fromkeys({sorted(others)!r})  # to import one is an ImportError
        from importlib.metadata import entry_points
        from torpor_api.mounts import GROUP
        for entry in entry_points(group=GROUP):
            print(type(entry.load()("http://127.0.0.1:1", "/mcp")).__name__)
    """)
    ran = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.stdout, ran.stderr) == ("HttpApp\n", "")


def test_a_server_starts_without_reading_what_is_mounted_on_it() -> None:
    program = textwrap.dedent("""
        import sys
        import torpor_api.commands.serve, torpor_api.serving
        from torpor_api.mounts import mounts
        assert mounts("http://127.0.0.1:1")
        print(*(name for name in ("mcp", "mcp_types", "jsonschema", "torpor.tools") if name in sys.modules))
    """)
    ran = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.stdout, ran.stderr) == ("\n", "")
