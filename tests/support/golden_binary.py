"""The sandbox binary for golden snapshots: the installed one, if it has their stamp, else one built as it was then."""

from __future__ import annotations

import json
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

from torpor_api.data_dir import default_data_dir
from torpor_snapshotter import runtimes
from torpor_snapshotter.runtimes.runsc import build_runsc
from torpor_worker.golden import Golden

CACHE = Path("~/.cache/torpor-tests").expanduser()


def quiet(task: str, fraction: float | None = None) -> None:
    """Report to nobody."""


def binary_for(golden: Golden) -> Path:
    """A binary with the stamp of these snapshots; built once if it must be."""
    for runtime in runtimes.installed(default_data_dir()):
        if runtime.runsc_version == golden.runsc_version:
            return runtime.runsc
    built = CACHE / f"runsc-{golden.runsc_version}"
    if not built.exists():
        facts = json.loads((golden.folder / "golden.json").read_text())
        named = {name: facts[name] for name in ("runsc_version", "runsc_sha256", "go_version", "go_wheel_sha256")}
        lock = replace(runtimes.load_lock(), **named)
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as work:
            build_runsc(lock, Path(work), threading.Event(), quiet, golden.folder / "runsc").rename(built)
    return built
