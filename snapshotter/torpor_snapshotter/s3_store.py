"""Objects in a bucket of S3, or of a server that speaks its protocol."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from torpor_snapshotter.at_once import all_of
from torpor_snapshotter.key import PROBE_PREFIX, BadKey, check_key
from torpor_snapshotter.s3_bucket import CALLS_AT_ONCE, Patience, S3Bucket
from torpor_snapshotter.s3_failure import S3Failure
from torpor_snapshotter.s3_write import PART_BYTES, S3Write
from torpor_snapshotter.store import AlreadyStored, NotStored, StoreError
from torpor_snapshotter.store_url import S3Location

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import (
        GetObjectRequestTypeDef,
        ListObjectsV2RequestTypeDef,
        MultipartUploadTypeDef,
    )

Answer = TypeVar("Answer")

_RANGE_BYTES: Final = 4 << 20
_ABANDONED: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class _Range:
    """A part of an object, and what was said of the whole with it."""

    data: bytes
    object_bytes: int
    etag: str


class S3Store:
    """An `ObjectStore` in a bucket: key `a/b` under the prefix `p/` is the object `p/a/b`.

    Needs conditional writes (`If-None-Match: *`), of whole objects and of multipart uploads; `check` sees to that.
    """

    def __init__(self, location: S3Location, patience: Patience | None = None) -> None:
        """Endpoint, region and credentials come from the environment and files that boto3 reads, when first needed."""
        self._location = location
        self._bucket = S3Bucket(location, patience or Patience())

    async def check(self) -> None:
        """Write, read, not overwrite, and delete an object; abort uploads that are over a day old.

        Raises `StoreError` with what is wrong.
        """
        key = f"{PROBE_PREFIX}{secrets.token_hex(8)}"
        written = secrets.token_bytes(64)
        await self.put_new(key, _pieces(written))
        try:
            read = [await self.read(key), await self.read(key, 16, 8)]
            if read != [written, written[16:24]]:
                raise StoreError(f"{self._location} does not give back the bytes that were written to it.")
            another = partial(S3Write, self._bucket, self._full(key))
            await self._expect_refusal(another().whole(b"whole"), "objects")
            await self._expect_refusal(another().parts(_pieces(b"parts")), "objects (by multipart uploads)")
            await self._abort_abandoned()
        except NotStored:
            raise StoreError(f"{self._location} acknowledges objects that are not there afterwards.") from None
        finally:
            await self.delete(key)

    async def put_new(self, key: str, body: AsyncIterator[bytes]) -> int:
        """Store `body` durably; its size in bytes. Raises `AlreadyStored` if the key exists, with nothing changed."""
        check_key(key)
        write = S3Write(self._bucket, self._full(key))
        async with aclosing(_parts(body)) as parts:
            first = await anext(parts, b"")
            if len(first) == PART_BYTES:
                return await write.parts(_preceded(first, parts))
        await write.whole(first)
        return len(first)

    async def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Bytes `start` to `start + length` (to the end for None), in ranges at once. Raises `NotStored`."""
        check_key(key)
        # Of nothing, one byte is asked for all the same, to see whether the object is there.
        first = await self._range(key, start, _RANGE_BYTES if length is None else min(length or 1, _RANGE_BYTES))
        end = first.object_bytes if length is None else min(first.object_bytes, start + length)
        begins = range(start + len(first.data), end, _RANGE_BYTES)
        rest = await all_of(
            [partial(self._range, key, at, min(_RANGE_BYTES, end - at), first.etag) for at in begins], CALLS_AT_ONCE
        )
        data = b"".join([first.data, *(part.data for part in rest)]) if rest else first.data
        return data if length is None else data[:length]

    async def delete(self, key: str) -> None:
        """Delete it; no error if it is not there."""
        check_key(key)
        with suppress(NotStored):
            await self._of_object(key, lambda s3: s3.delete_object(Bucket=self._name, Key=self._full(key)))

    async def list(self, prefix: str = "") -> AsyncIterator[str]:
        """Every key that begins with `prefix`, in no order; objects that no key of a store names are left out."""
        token: str | None = ""
        while token is not None:
            page, token = await self._bucket.call(partial(self._page, self._full(prefix), token))
            for full in page:
                key = full.removeprefix(self._location.prefix)
                with suppress(BadKey):
                    check_key(key)
                    yield key

    async def close(self) -> None:
        """End the threads and the connections."""
        await self._bucket.close()

    @property
    def _name(self) -> str:
        return self._location.bucket

    def _full(self, key: str) -> str:
        return self._location.prefix + key

    async def _range(self, key: str, start: int, length: int, etag: str | None = None) -> _Range:
        try:
            return await self._of_object(key, partial(self._get, key, start, length, etag))
        except S3Failure as failure:
            if failure.status == 416:
                return _Range(b"", 0, "")
            raise

    def _get(self, key: str, start: int, length: int, etag: str | None, s3: S3Client) -> _Range:
        asked = f"bytes={start}-{start + length - 1}"
        request: GetObjectRequestTypeDef = {"Bucket": self._name, "Key": self._full(key), "Range": asked}
        if etag is not None:
            request["IfMatch"] = etag
        answer = s3.get_object(**request)
        with closing(answer["Body"]) as body:
            data = body.read()
        if content_range := answer.get("ContentRange"):
            return _Range(data, int(content_range.rpartition("/")[2]), answer["ETag"])
        return _Range(data[start : start + length], len(data), answer["ETag"])  # the range was not heeded

    def _page(self, prefix: str, token: str, s3: S3Client) -> tuple[Sequence[str], str | None]:
        request: ListObjectsV2RequestTypeDef = {"Bucket": self._name, "Prefix": prefix}
        if token:
            request["ContinuationToken"] = token
        answer = s3.list_objects_v2(**request)
        return [entry["Key"] for entry in answer.get("Contents", ())], answer.get("NextContinuationToken")

    async def _abort_abandoned(self) -> None:
        """Give back the room of uploads that dead processes began. No live one takes a day."""
        for upload in await self._bucket.call(self._abandoned):
            with suppress(S3Failure):  # it is gone by now
                await self._bucket.call(partial(self._abort, upload))

    def _abort(self, upload: MultipartUploadTypeDef, s3: S3Client) -> None:
        s3.abort_multipart_upload(Bucket=self._name, Key=upload["Key"], UploadId=upload["UploadId"])

    def _abandoned(self, s3: S3Client) -> Sequence[MultipartUploadTypeDef]:
        pages = s3.get_paginator("list_multipart_uploads").paginate(Bucket=self._name, Prefix=self._location.prefix)
        uploads = [upload for page in pages for upload in page.get("Uploads", ())]
        old = datetime.now(UTC) - _ABANDONED
        return [upload for upload in uploads if upload["Initiated"] < old]

    async def _of_object(self, key: str, work: Callable[[S3Client], Answer]) -> Answer:
        try:
            return await self._bucket.call(work)
        except S3Failure as failure:
            if failure.is_absence:
                raise NotStored(f"{key} is not stored.") from None
            raise

    async def _expect_refusal(self, writing: Awaitable[object], what: str) -> None:
        with suppress(AlreadyStored):
            await writing
            raise StoreError(
                f"{self._location} lets {what} be overwritten: its server does not heed If-None-Match, which Torpor "
                "needs. Use a newer or another one."
            )


async def _pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def _parts(body: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The same bytes in parts of `PART_BYTES`, and a last one of less if there is more."""
    waiting = bytearray()
    async for piece in body:
        waiting += piece
        while len(waiting) >= PART_BYTES:
            yield bytes(waiting[:PART_BYTES])
            del waiting[:PART_BYTES]
    if waiting:
        yield bytes(waiting)


async def _preceded(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for part in rest:
        yield part
