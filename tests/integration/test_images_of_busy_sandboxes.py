"""Images that are written while much is on its way between host and guest: nothing of it is lost or doubled."""

import asyncio
import hashlib
import time
from pathlib import Path

import pytest

from torpor_worker.gvisor import GVisorSandbox
from torpor_worker.sandbox import Output, Result

pytestmark = pytest.mark.integration

IMAGES = 15


async def _images(sandbox: GVisorSandbox, folder: Path) -> None:
    for number in range(IMAGES):
        await sandbox.checkpoint(folder / f"image{number}")


def _stand_still() -> None:
    """As a host does that has more to do: much waits in the pipes."""
    time.sleep(0.02)


async def test_output_that_is_on_its_way_while_images_are_written_arrives_whole(
    sandbox: GVisorSandbox, folder: Path
) -> None:
    code = "for i in range(50_000): print(i, 'x' * 50)\nimport os; 'done'"
    await sandbox.execute(0, 0, code, replaying=False)
    digest, ending = hashlib.sha256(), None

    async def listen() -> None:
        nonlocal ending
        while ending is None:
            event = await sandbox.receive()
            if isinstance(event, Output):
                digest.update(event.data)
                _stand_still()
            else:
                ending = event
            await sandbox.acknowledge()

    async with asyncio.timeout(120):
        await asyncio.gather(listen(), _images(sandbox, folder))
    assert isinstance(ending, Result), ending
    expected = hashlib.sha256()
    for number in range(50_000):
        expected.update(f"{number} {'x' * 50}\n".encode())
    assert digest.hexdigest() == expected.hexdigest()
