"""Runtimes: building, keeping and handing over sandbox binaries and root file systems."""

from torpor_snapshotter.runtimes.archive import export_runtime, import_runtime
from torpor_snapshotter.runtimes.build import BuildSettings, Built, build
from torpor_snapshotter.runtimes.errors import RuntimeMissing, RuntimeProblem
from torpor_snapshotter.runtimes.folder import current, installed, runtimes_dir, verify
from torpor_snapshotter.runtimes.lock import load_lock
from torpor_snapshotter.runtimes.update import update_lock

__all__ = [
    "BuildSettings",
    "Built",
    "RuntimeMissing",
    "RuntimeProblem",
    "build",
    "current",
    "export_runtime",
    "import_runtime",
    "installed",
    "load_lock",
    "runtimes_dir",
    "update_lock",
    "verify",
]
