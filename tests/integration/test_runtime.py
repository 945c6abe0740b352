from __future__ import annotations

import pytest

from torpor_api.data_dir import default_data_dir
from torpor_snapshotter.runtime import Runtime
from torpor_snapshotter.runtimes import current, load_lock, verify
from torpor_snapshotter.runtimes.folder import built_for
from torpor_snapshotter.runtimes.runsc import stamped_version

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    """The one that set-up installed; it is not built again here."""
    return current(default_data_dir())


def test_the_installed_runtime_is_undamaged_and_was_built_from_the_lock(runtime: Runtime):
    lock = load_lock()

    verify(runtime)

    assert built_for(runtime) == lock.series
    if runtime.series == lock.series:  # else the mirror had dropped a locked package, as the build said
        assert runtime.rootfs_sha256 == lock.rootfs_sha256


def test_the_binary_carries_its_version_stamp(runtime: Runtime):
    assert stamped_version(runtime.runsc) == runtime.runsc_version
