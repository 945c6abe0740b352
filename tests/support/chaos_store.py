"""A bucket that misbehaves for the chaos suite: an S3 server behind a proxy, in threads and processes of their own."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.fault_proxy import FaultProxy, HttpFault
from tests.support.s3_server import BUCKET, S3Server, s3_server

STORE_URL = f"s3://{BUCKET}/chaos"
_FAULTS = (HttpFault.ERROR, HttpFault.CUT, HttpFault.LOST_ANSWER, HttpFault.HALF_ANSWER)


class MoodyBucket:
    """Answers as it should until it is told otherwise."""

    def __init__(self, proxy: FaultProxy) -> None:
        self._proxy = proxy

    def fail_sometimes(self, chance: random.Random) -> None:
        """A third of all requests go wrong, and some puts are acknowledged that were never made."""

        def choose(request: str) -> HttpFault | None:
            if chance.random() < 2 / 3:
                return None
            faults = (*_FAULTS, HttpFault.SUCCESS) if request.startswith("PUT") else _FAULTS
            return chance.choice(faults)

        self._proxy.choose = choose

    def be_away(self) -> None:
        """Every connection is cut."""
        self._proxy.choose = lambda request: HttpFault.CUT

    def be_well(self) -> None:
        """All is as it should be."""
        self._proxy.choose = lambda request: None


@contextmanager
def moody_bucket() -> Iterator[MoodyBucket]:
    """A bucket for servers that are started meanwhile: their environment names it."""
    with s3_server() as server:
        started: list[tuple[FaultProxy, asyncio.AbstractEventLoop, asyncio.Event]] = []
        ready = threading.Event()
        thread = threading.Thread(target=lambda: asyncio.run(_serve(server, started, ready)), name="bucket")
        thread.start()
        ready.wait()
        proxy, loop, over = started[0]
        kept = dict(os.environ)
        os.environ.update(server.environment(proxy.url))
        try:
            yield MoodyBucket(proxy)
        finally:
            os.environ.clear()
            os.environ.update(kept)
            loop.call_soon_threadsafe(over.set)
            thread.join()


async def _serve(
    server: S3Server,
    started: list[tuple[FaultProxy, asyncio.AbstractEventLoop, asyncio.Event]],
    ready: threading.Event,
) -> None:
    over = asyncio.Event()
    async with FaultProxy(server.address) as proxy:
        started.append((proxy, asyncio.get_running_loop(), over))
        ready.set()
        await over.wait()
