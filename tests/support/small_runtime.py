"""A second runtime for tests: the installed sandbox binary with the golden snapshots' root file system."""

from __future__ import annotations

import shutil
from pathlib import Path

from torpor_api.data_dir import default_data_dir
from torpor_snapshotter import runtimes
from torpor_snapshotter.runtime import Runtime
from torpor_snapshotter.runtimes.folder import exclusive, publish
from torpor_worker.golden import goldens, unpack_rootfs

GOLDEN_FOLDER = Path(__file__).parents[1] / "golden"


def quiet(task: str, fraction: float | None = None) -> None:
    """Report to nobody."""


def install_small_runtime(data_dir: Path) -> Runtime:
    """Bare Python and IPython, a hundred megabytes with the binary."""
    binary = runtimes.current(default_data_dir())
    [golden, *_] = goldens(GOLDEN_FOLDER)
    with exclusive(data_dir, quiet) as work:
        unpack_rootfs(golden, work / "rootfs")
        shutil.copy(binary.runsc, work / "runsc")
        return publish(data_dir, work / "runsc", work / "rootfs", binary.runsc_version, None)
