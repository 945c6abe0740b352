"""What type checkers know of `torpor`: the type of everything that it exports is declared, and none is a guess."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

OF_FRAMEWORKS = (
    "anthropic",
    "deepagents",
    "langchain",
    "llama_index",
    "openai",
    "openai_agents",
    "pydantic_ai",
    "smolagents",
)
"""Each of these is checked in the environment where its framework is."""


def test_every_type_of_the_public_interface_is_known(tmp_path: Path) -> None:
    binaries = Path(sys.executable).parent
    checked = subprocess.run(
        [binaries / "basedpyright", "--verifytypes", "torpor", "--ignoreexternal", "--outputjson"],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    completeness = json.loads(checked.stdout)["typeCompleteness"]
    assert completeness["exportedSymbolCounts"]["withKnownType"] > 150
    frameworks = tuple(f"torpor.tools.{name}." for name in OF_FRAMEWORKS)
    unknown = [
        symbol["name"]
        for symbol in completeness["symbols"]
        if not symbol["isTypeKnown"] and not f"{symbol['name']}.".startswith(frameworks)
    ]
    assert unknown == []
