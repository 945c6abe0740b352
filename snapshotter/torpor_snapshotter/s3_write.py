"""Writing one object to S3, once or not at all."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from torpor_snapshotter.s3_bucket import S3Bucket
from torpor_snapshotter.s3_failure import S3Failure
from torpor_snapshotter.store import AlreadyStored, DamagedObject, StoreError

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import CompletedPartTypeDef

PART_BYTES: Final = 8 << 20
_PARTS_AT_ONCE: Final = 4
_MOST_PARTS: Final = 10_000  # S3's limit
_SECOND_LOOKS_SECONDS: Final = (0.1, 0.5, 1.0)
_WRITE: Final = "torpor-write"


class S3Write:
    """One attempt to write `key`, told from every other by a random word in the object's metadata.

    S3 may do what it was asked for and its answer be lost; the next try then finds the key taken, by itself. The word
    says so.
    """

    def __init__(self, bucket: S3Bucket, key: str) -> None:
        """`key` is the whole one, prefix included."""
        self._bucket = bucket
        self._name = bucket.location.bucket
        self._key = key
        self._word = secrets.token_hex(16)

    async def whole(self, data: bytes) -> None:
        """Put it in one request. Raises `AlreadyStored`, `StoreError`."""
        try:
            await self._bucket.call(partial(self._put, data), to_its_end=True)
        except S3Failure as failure:
            if failure.decided:
                raise
            await self._expect_ours(len(data), failure)
        except asyncio.CancelledError:
            await asyncio.shield(self._take_back())
            raise

    async def parts(self, parts: AsyncIterator[bytes]) -> int:
        """Put it as a multipart upload; its size in bytes. Every part but the last has `PART_BYTES`."""
        upload_id = await self._bucket.call(self._create, to_its_end=True)
        try:
            size_bytes, sent = await self._send_all(upload_id, parts)
            await self._complete(upload_id, size_bytes, sent)
        except BaseException:
            with suppress(StoreError):  # the store's `check` aborts it another day
                await asyncio.shield(self._bucket.call(partial(self._abort, upload_id)))
            raise
        return size_bytes

    async def _send_all(self, upload_id: str, parts: AsyncIterator[bytes]) -> tuple[int, list[CompletedPartTypeDef]]:
        size_bytes = 0
        every: list[asyncio.Task[CompletedPartTypeDef]] = []
        sending: set[asyncio.Task[CompletedPartTypeDef]] = set()
        try:
            async for part in parts:
                number = len(every) + 1
                if number > _MOST_PARTS:
                    raise StoreError(f"{self._key} is too large: a store takes {_MOST_PARTS * PART_BYTES >> 30} GiB.")
                if len(sending) == _PARTS_AT_ONCE:
                    done, sending = await asyncio.wait(sending, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()  # a failure ends it here
                send = self._bucket.call(partial(self._send, upload_id, number, part), to_its_end=True)
                task = asyncio.create_task(send, name=f"part {number} of {self._key}")
                every.append(task)
                sending.add(task)
                size_bytes += len(part)
            return size_bytes, await asyncio.gather(*every)
        finally:
            for task in sending:
                task.cancel()
            await asyncio.gather(*every, return_exceptions=True)

    async def _complete(self, upload_id: str, size_bytes: int, sent: list[CompletedPartTypeDef]) -> None:
        lost: S3Failure | None = None
        try:
            await self._bucket.call(partial(self._finish, upload_id, sent), to_its_end=True)
        except S3Failure as failure:
            if failure.decided:
                raise
            lost = failure
        except asyncio.CancelledError:
            await asyncio.shield(self._take_back())
            raise
        # Also after a success: a server was seen to say so of an upload that was aborted, if the key was taken.
        await self._expect_ours(size_bytes, lost)

    async def _expect_ours(self, size_bytes: int, failure: S3Failure | None) -> None:
        """Return if the object that has the key is this one. Raises what is true instead."""
        found = await self._bucket.call(self._look)
        for pause_seconds in _SECOND_LOOKS_SECONDS:
            if found is not None:
                break
            await asyncio.sleep(pause_seconds)  # a server may refuse a key a moment before it shows what has it
            found = await self._bucket.call(self._look)
        if found is None:
            raise failure or StoreError(f"The store said that {self._key} is written, but it is not there.")
        word, found_bytes = found
        if word != self._word:
            raise AlreadyStored(f"{self._key} is stored already.")
        if found_bytes != size_bytes:
            raise DamagedObject(f"{self._key} has {found_bytes} bytes in the store, {size_bytes} were written.")

    async def _take_back(self) -> None:
        """Delete the object if it is this one."""
        with suppress(StoreError):  # what stays is garbage that nothing names
            found = await self._bucket.call(self._look)
            if found is not None and found[0] == self._word:
                await self._bucket.call(lambda s3: s3.delete_object(Bucket=self._name, Key=self._key))

    def _put(self, data: bytes, s3: S3Client) -> None:
        s3.put_object(
            Bucket=self._name,
            Key=self._key,
            Body=data,
            ContentMD5=_md5(data),
            IfNoneMatch="*",
            Metadata={_WRITE: self._word},
        )

    def _create(self, s3: S3Client) -> str:
        return s3.create_multipart_upload(Bucket=self._name, Key=self._key, Metadata={_WRITE: self._word})["UploadId"]

    def _send(self, upload_id: str, number: int, part: bytes, s3: S3Client) -> CompletedPartTypeDef:
        answer = s3.upload_part(
            Bucket=self._name,
            Key=self._key,
            UploadId=upload_id,
            PartNumber=number,
            Body=part,
            ContentMD5=_md5(part),
        )
        return {"PartNumber": number, "ETag": answer["ETag"]}

    def _finish(self, upload_id: str, sent: list[CompletedPartTypeDef], s3: S3Client) -> None:
        s3.complete_multipart_upload(
            Bucket=self._name,
            Key=self._key,
            UploadId=upload_id,
            MultipartUpload={"Parts": sent},
            IfNoneMatch="*",
        )

    def _abort(self, upload_id: str, s3: S3Client) -> None:
        s3.abort_multipart_upload(Bucket=self._name, Key=self._key, UploadId=upload_id)

    def _look(self, s3: S3Client) -> tuple[str | None, int] | None:
        """The word and the size in bytes of what has the key; None if nothing has."""
        try:
            head = s3.head_object(Bucket=self._name, Key=self._key)
        except s3.exceptions.ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return None
            raise
        return head["Metadata"].get(_WRITE), head["ContentLength"]


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
