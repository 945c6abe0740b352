"""Images that are written while much is on its way between host and guest: nothing of it is lost or doubled."""

import asyncio
import hashlib
import os
import time
from pathlib import Path

import pytest
from tests.support.remote_files import OWN
from tests.support.sandboxes import run

from torpor_worker.files import Change, Read
from torpor_worker.gvisor import GVisorHost, GVisorSandbox
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


async def test_files_on_their_way_in_both_directions_while_images_are_written_arrive_whole(
    sandbox: GVisorSandbox, folder: Path
) -> None:
    await run(sandbox, 0, "a = 3")
    data = os.urandom(8 << 20)

    async def up(name: str, position: int) -> None:
        transfer = await sandbox.work_on_files(Change("write", name))
        for start in range(0, len(data), 100_000):
            await transfer.send(data[start : start + 100_000])
        await transfer.prepared()
        await sandbox.apply_change(position, transfer)
        await transfer.ended()

    async def down(name: str) -> bytes:
        transfer = await sandbox.work_on_files(Read(name))
        pieces = []
        while piece := await transfer.receive():
            pieces.append(piece)
            _stand_still()
        return b"".join(pieces)

    async with asyncio.timeout(120):
        await asyncio.gather(up("first", 1), _images(sandbox, folder))
        (folder / "more").mkdir()
        read, again, *_ = await asyncio.gather(
            down("first"), down("first"), up("second", 2), _images(sandbox, folder / "more")
        )
    assert read == again == data
    assert await down("second") == data


async def test_an_image_from_the_middle_of_an_upload_holds_nothing_of_it(
    host: GVisorHost, sandbox: GVisorSandbox, folder: Path
) -> None:
    await run(sandbox, 0, "a = 3")
    transfer = await sandbox.work_on_files(Change("write", "half"))
    await transfer.send(b"x" * 100_000)
    await sandbox.checkpoint(folder / "image")
    restored, _ = await host.restore("other", folder / "image", sandbox.limits)
    code = (
        "import os, time\nend = time.time() + 10\n"
        "while any(n.startswith('.torpor') for n in os.listdir()) and time.time() < end: time.sleep(0.01)\n"
        f"[n for n in os.listdir() if n not in {OWN!r}]"
    )
    assert await run(restored, 1, code) == "[]"
    await transfer.prepared()  # the one that goes on knows nothing of that
    await sandbox.apply_change(1, transfer)
    await transfer.ended()
    assert await run(sandbox, 2, "len(open('half').read())") == "100000"
