"""Calls to one bucket: in threads, with time-outs, tried again where that may help."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from torpor_snapshotter.s3_failure import S3Failure, failure_of
from torpor_snapshotter.store import StoreError
from torpor_snapshotter.store_url import S3Location

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

Answer = TypeVar("Answer")

CALLS_AT_ONCE: Final = 8
_ATTEMPTS: Final = 4
_FIRST_BACK_OFF_SECONDS: Final = 0.2
_LONGEST_BACK_OFF_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a server is waited for, in seconds."""

    connect_seconds: float = 5
    read_seconds: float = 20
    """Without a byte. One that goes on sending, however slowly, is waited for."""


class S3Bucket:
    """A bucket, reached when first needed with the endpoint, region and credentials that boto3 finds.

    Calls of boto3 block, so each takes one of `CALLS_AT_ONCE` threads; more wait.
    """

    def __init__(self, location: S3Location, patience: Patience) -> None:
        self.location = location
        self._patience = patience
        self._threads = ThreadPoolExecutor(CALLS_AT_ONCE, "s3")
        self._connecting = threading.Lock()
        self._client: S3Client | None = None
        self._jitter = random.SystemRandom()

    async def call(self, work: Callable[[S3Client], Answer], *, to_its_end: bool = False) -> Answer:
        """What `work` returns, in a thread; raises `S3Failure` after some tries.

        A thread cannot be cancelled. With `to_its_end` a cancelled call returns only when its thread has: nothing that
        it sends arrives later.
        """
        for attempt in itertools.count(1):
            try:
                return await self._once(work, to_its_end=to_its_end)
            except S3Failure as failure:
                if not failure.passing or attempt == _ATTEMPTS:
                    raise
            longest = min(_LONGEST_BACK_OFF_SECONDS, _FIRST_BACK_OFF_SECONDS * 2**attempt)
            await asyncio.sleep(self._jitter.uniform(longest / 4, longest))
        raise AssertionError("the last attempt returns or raises")

    async def close(self) -> None:
        """End the threads and the connections."""
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)
        if self._client is not None:
            self._client.close()

    async def _once(self, work: Callable[[S3Client], Answer], *, to_its_end: bool) -> Answer:
        future = asyncio.get_running_loop().run_in_executor(self._threads, self._work, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if to_its_end:
                await asyncio.wait({future})
            future.add_done_callback(_hear)
            raise

    def _work(self, work: Callable[[S3Client], Answer]) -> Answer:
        client = self._connected()
        try:
            return work(client)
        except (BotoCoreError, ClientError, ResponseParserError, OSError) as error:
            # `from None`: what boto3 says may hold more than a log should.
            raise failure_of(error, str(self.location), _name_of(client.meta.endpoint_url)) from None

    def _connected(self) -> S3Client:
        with self._connecting:
            if self._client is None:
                try:
                    self._client = _connect(self._patience)
                except (BotoCoreError, ValueError) as error:
                    raise StoreError(
                        f"{self.location} cannot be reached as AWS_ENDPOINT_URL_S3, AWS_PROFILE and their like say: "
                        f"{error}"
                    ) from None
            return self._client


def _connect(patience: Patience) -> S3Client:
    config = Config(
        connect_timeout=patience.connect_seconds,
        read_timeout=patience.read_seconds,
        retries={"total_max_attempts": 1},  # `call` tries again, also when a body breaks off
        max_pool_connections=CALLS_AT_ONCE,
        tcp_keepalive=True,
        # Every upload has a Content-MD5, which all servers check; the newer checksums only some know.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    client: S3Client = boto3.session.Session().client("s3", config=config)
    return client


def _name_of(endpoint_url: str) -> str:
    """An endpoint without what a URL may hold besides."""
    parts = urlsplit(endpoint_url)
    return parts.netloc.rpartition("@")[2]


def _hear(future: asyncio.Future[Answer]) -> None:
    """Take the exception of a call that nobody waits for any more."""
    if not future.cancelled():
        future.exception()
