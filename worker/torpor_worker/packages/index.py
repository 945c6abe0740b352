"""A simple index that answers in JSON (PEP 691): what it lists, what it says of a wheel (PEP 658), and the wheels."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

import httpx2
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from torpor_worker.packages.asked import PackageRefused

ACCEPT = "application/vnd.pypi.simple.v1+json"
LIST_LIMIT_BYTES = 64 << 20
METADATA_LIMIT_BYTES = 4 << 20
SHA256 = re.compile(r"[0-9a-f]{64}")
TIMEOUT_SECONDS = 30.0
TRIES = 3
NOWHERE = "The package index leads to an address that leads nowhere."


@dataclass(frozen=True, slots=True)
class IndexFile:
    """A wheel as the index lists it."""

    name: str
    version: Version
    filename: str
    url: str
    sha256: str
    tags: frozenset[Tag]
    size_bytes: int | None
    requires_python: SpecifierSet | None
    yanked: bool
    metadata_sha256: str | bool
    """Whether its metadata can be had alone, and its digest if the index says that."""


@dataclass(frozen=True, slots=True)
class Project:
    """What an index has of one name."""

    wheels: tuple[IndexFile, ...]
    has_sources: bool
    """Whether there is anything that would have to be built."""


class PackageIndex:
    """One index. Methods raise `PackageRefused` with what is wrong with it."""

    def __init__(self, address: str, client: httpx2.Client) -> None:
        url = httpx2.URL(address.rstrip("/") + "/")
        self._auth = (url.username, url.password) if url.userinfo else None
        self._address = url.copy_with(userinfo=b"")
        self._client = client

    def project(self, name: str) -> Project | None:
        """What there is of a normalized name; None if the index does not know it."""
        url = urljoin(str(self._address), f"{name}/")
        with self._answer(url, {"Accept": ACCEPT}) as response:
            if response.status_code == 404:
                return None
            self._expect(response)
            body = b"".join(_bounded(response, LIST_LIMIT_BYTES))
            base = str(response.url)
        try:
            files = json.loads(body)["files"]
            return _project(name, base, files)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise PackageRefused("The package index does not answer in JSON (PEP 691), or not as it should.") from None

    def metadata(self, file: IndexFile) -> bytes | None:
        """A wheel's metadata; None if the index has it only inside of the wheel."""
        if not file.metadata_sha256:
            return None
        with self._answer(file.url + ".metadata") as response:
            if response.status_code == 404:
                return None
            self._expect(response)
            body = b"".join(_bounded(response, METADATA_LIMIT_BYTES))
        if isinstance(file.metadata_sha256, str) and hashlib.sha256(body).hexdigest() != file.metadata_sha256:
            raise PackageRefused(f"The metadata of {file.filename} is not what the package index says it is.")
        return body

    @contextmanager
    def wheel(self, file: IndexFile, limit_bytes: int) -> Iterator[Iterator[bytes]]:
        """A wheel's bytes, not checked yet."""
        with self._answer(file.url) as response:
            self._expect(response)
            yield _bounded(response, limit_bytes)

    @contextmanager
    def _answer(self, url: str, headers: dict[str, str] | None = None) -> Iterator[httpx2.Response]:
        auth = self._auth if self._is_own(url) else None
        for tries in range(1, TRIES + 1):
            try:
                with self._client.stream("GET", url, headers=headers, auth=auth) as response:
                    if response.status_code >= 500 and tries < TRIES:
                        continue
                    yield response
                    return
            except (httpx2.UnsupportedProtocol, httpx2.TooManyRedirects):
                raise PackageRefused(NOWHERE) from None
            except httpx2.TransportError as error:
                if tries == TRIES or not isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
                    raise PackageRefused(f"The package index cannot be reached: {type(error).__name__}.") from error

    def _is_own(self, url: str) -> bool:
        """Whether an address is of the index itself, which may see its password."""
        try:
            other = httpx2.URL(url)
        except httpx2.InvalidURL:
            raise PackageRefused(NOWHERE) from None
        return (other.scheme, other.host, other.port) == (
            self._address.scheme,
            self._address.host,
            self._address.port,
        )

    def _expect(self, response: httpx2.Response) -> None:
        if response.status_code != 200:
            raise PackageRefused(f"The package index answered with status {response.status_code}.")


def make_client() -> httpx2.Client:
    """What asks the index: it follows where the index leads."""
    return httpx2.Client(timeout=TIMEOUT_SECONDS, follow_redirects=True, headers={"User-Agent": "torpor"})


def _bounded(response: httpx2.Response, limit_bytes: int) -> Iterator[bytes]:
    size = 0
    for piece in response.iter_bytes():
        size += len(piece)
        if size > limit_bytes:
            raise PackageRefused(f"The package index sent more than the {limit_bytes} bytes that there may be.")
        yield piece


def _project(name: str, base: str, files: list[dict[str, Any]]) -> Project:
    wheels, has_sources = [], False
    for fields in files:
        filename = str(fields["filename"])
        if not filename.endswith(".whl"):
            has_sources = True
            continue
        wheel = _wheel(name, base, filename, fields)
        if wheel is not None:
            wheels.append(wheel)
    return Project(tuple(wheels), has_sources)


def _wheel(name: str, base: str, filename: str, fields: dict[str, Any]) -> IndexFile | None:
    """None for one that cannot be checked, or is of something else."""
    sha256 = str(dict(fields.get("hashes") or {}).get("sha256", ""))
    try:
        named, version, _, tags = parse_wheel_filename(filename)
        requires = fields.get("requires-python")
        requires_python = SpecifierSet(str(requires)) if requires else None
    except (InvalidWheelFilename, InvalidSpecifier):
        return None
    if named != canonicalize_name(name) or not SHA256.fullmatch(sha256) or "/" in filename:
        return None
    alone = fields.get("core-metadata", fields.get("dist-info-metadata", False))
    if isinstance(alone, dict):
        alone = str(alone.get("sha256", "")) or True
    size = fields.get("size")
    return IndexFile(
        name=named,
        version=version,
        filename=filename,
        url=urljoin(base, str(fields["url"])),
        sha256=sha256,
        tags=tags,
        size_bytes=size if isinstance(size, int) else None,
        requires_python=requires_python,
        yanked=bool(fields.get("yanked")),
        metadata_sha256=alone if isinstance(alone, str) else bool(alone),
    )
