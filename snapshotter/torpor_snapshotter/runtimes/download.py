"""Fetching files whose digests are known."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from torpor_snapshotter.runtimes.errors import DownloadFailed, NotOnMirror, WrongDigest
from torpor_snapshotter.runtimes.folder import file_sha256
from torpor_snapshotter.runtimes.lock import Package
from torpor_snapshotter.runtimes.progress import Report

_TRIES = 5
_TIMEOUT_SECONDS = 60
_AT_ONCE = 6
_GONE = (404, 410)


def fetch(url: str) -> bytes:
    """The body at `url`, after several tries. Raises `NotOnMirror` if it is not there, else `DownloadFailed`."""
    if not url.startswith(("http://", "https://", "file://")):
        raise DownloadFailed(f"{url} is no address that can be fetched: it begins with neither http: nor https:.")
    problem = ""
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(2**attempt)
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310 - checked above
                body: bytes = answer.read()
                return body
        except urllib.error.HTTPError as error:
            if error.code in _GONE:
                raise NotOnMirror(f"{url} does not exist.") from error
            problem = str(error)
        except urllib.error.URLError as error:
            if isinstance(error.reason, FileNotFoundError):
                raise NotOnMirror(f"{url} does not exist.") from error
            problem = str(error)
        except (OSError, ValueError) as error:
            problem = str(error)
    raise DownloadFailed(f"{url} could not be fetched in {_TRIES} tries: {problem}")


def fetch_packages(mirror: str, packages: tuple[Package, ...], folder: Path, report: Report) -> list[Path]:
    """The `.deb` files of `packages`, in their order. What `folder` already holds is not fetched again.

    Raises `NotOnMirror` if the mirror has dropped one, `WrongDigest`, `DownloadFailed`.
    """
    task = f"Downloading {len(packages)} Debian packages"
    report(task, 0)
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        jobs = [pool.submit(_fetch_package, mirror, package, folder) for package in packages]
        try:
            for done, job in enumerate(as_completed(jobs), start=1):
                job.result()
                report(task, done / len(jobs))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [job.result() for job in jobs]


def _fetch_package(mirror: str, package: Package, folder: Path) -> Path:
    place = folder / f"{package.sha256}.deb"
    if place.exists() and file_sha256(place) == package.sha256:
        return place
    place.write_bytes(fetch(f"{mirror}/{package.path}"))
    if file_sha256(place) != package.sha256:
        place.unlink()
        raise WrongDigest(f"{package.name} {package.version} from {mirror} has another SHA-256 than the lock: refused.")
    return place
