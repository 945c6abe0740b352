"""The programs in a guide, run as they are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

GUIDES = Path(__file__).parents[2] / "docs" / "guides"
_PROGRAM = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SECONDS = 120


def programs(guide: str) -> list[str]:
    """The programs in `docs/guides/<guide>.md`."""
    return _PROGRAM.findall((GUIDES / f"{guide}.md").read_text())


def run(program: str, folder: Path, environment: Mapping[str, str]) -> str:
    """What a program prints, in a process and a folder of its own. It must end well."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=folder,
        env=os.environ | dict(environment),
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
