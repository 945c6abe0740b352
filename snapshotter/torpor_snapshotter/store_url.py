"""Which store a URL means."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from torpor_snapshotter.folder_store import FolderStore
from torpor_snapshotter.key import BadKey, check_key
from torpor_snapshotter.store import ObjectStore

_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")  # S3's rules, and the older, wider ones


class BadStoreUrl(ValueError):
    """A URL that names no store; the message says what would."""


@dataclass(frozen=True, slots=True)
class S3Location:
    """A bucket, and what every key in it begins with: nothing, or names that end with a slash."""

    bucket: str
    prefix: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".removesuffix("/")


def open_store(url: str) -> ObjectStore:
    """The store at `url`, see `locate`. Raises `BadStoreUrl`; touches nothing yet."""
    place = locate(url)
    if isinstance(place, Path):
        return FolderStore(place)
    # boto3 takes half a second and 30 MB, which a store in a folder is to be spared.
    from torpor_snapshotter.s3_store import S3Store  # noqa: PLC0415

    return S3Store(place)


def locate(url: str) -> Path | S3Location:
    """What `file:///absolute/folder` or `s3://bucket/prefix` names. Raises `BadStoreUrl`."""
    parts = urlsplit(url)
    if "@" in parts.netloc:  # not repeated: it may be a secret
        raise BadStoreUrl("A store URL holds no credentials; S3's are read from AWS_ACCESS_KEY_ID and its like.")
    if parts.scheme == "s3":
        return _s3_location(url, parts.netloc, unquote(parts.path), parts.query or parts.fragment)
    if parts.scheme != "file":
        raise BadStoreUrl(
            f"The store URL {url!r} cannot be used: write a folder as file:///srv/torpor, "
            "a bucket as s3://bucket/prefix."
        )
    folder = unquote(parts.path)
    if parts.netloc not in {"", "localhost"} or not folder.startswith("/") or parts.query or parts.fragment:
        raise BadStoreUrl(f"The store URL {url!r} names no folder of this host; write it as file:///srv/torpor.")
    return Path(folder)


def _s3_location(url: str, bucket: str, path: str, rest: str) -> S3Location:
    prefix = path.strip("/")
    try:
        if not _BUCKET.fullmatch(bucket) or rest:
            raise BadKey(bucket)
        if prefix:
            check_key(prefix)
    except BadKey:
        raise BadStoreUrl(
            f"The store URL {url!r} names no bucket; write it as s3://bucket/prefix, with a prefix of letters, digits, "
            "_, - and . or none. Another endpoint than AWS's goes into AWS_ENDPOINT_URL_S3."
        ) from None
    return S3Location(bucket, f"{prefix}/" if prefix else "")
