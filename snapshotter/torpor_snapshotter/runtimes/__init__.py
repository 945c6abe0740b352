"""Runtimes: building, keeping and handing over sandbox binaries and root file systems."""

from torpor_snapshotter.runtimes.errors import RuntimeMissing, RuntimeProblem
from torpor_snapshotter.runtimes.folder import current, installed, runtimes_dir, verify

__all__ = ["RuntimeMissing", "RuntimeProblem", "current", "installed", "runtimes_dir", "verify"]
