"""What integration tests share: the runtime, a host in a folder of its own, and a sandbox with an empty interpreter."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.support.sandboxes import LIMITS

from torpor_api.data_dir import default_data_dir
from torpor_snapshotter import runtimes
from torpor_snapshotter.runtime import Runtime
from torpor_worker.gvisor import GVisorHost, GVisorSandbox


@pytest.fixture(scope="session")
def runtime() -> Runtime:
    """The installed runtime; `scripts/test` sees to it that there is one."""
    return runtimes.current(default_data_dir())


@pytest.fixture
def folder() -> Iterator[Path]:
    """A new folder that every user may look into; its path is short, as those of sockets must be."""
    folder = Path(tempfile.mkdtemp(prefix="torpor-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
async def host(runtime: Runtime, folder: Path) -> AsyncIterator[GVisorHost]:
    """A host whose folder is `folder`/sandboxes."""
    host = GVisorHost(runtime, folder / "sandboxes")
    yield host
    await host.close()


@pytest.fixture
async def sandbox(host: GVisorHost) -> GVisorSandbox:
    """A sandbox with an empty interpreter."""
    return await host.start("test", LIMITS)
