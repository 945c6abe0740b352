"""Which mirror of Debian this host uses."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from torpor_snapshotter.runtimes.errors import DownloadFailed, MirrorUnknown

_SUITES = {"stable", "testing", "unstable", "oldstable", "sid"} | {"bullseye", "bookworm", "trixie", "forky", "duke"}
"""Suites of the main archive: an entry with one of them is probably Debian's own."""

_ADVICE = "Set TORPOR_DEBIAN_MIRROR to the address of a mirror of Debian (the folder that holds `dists` and `pool`)."


def choose_mirror(apt_dir: Path, setting: str | None, suite: str, fetch: Callable[[str], bytes]) -> str:
    """The mirror to use: the setting, else the first in apt's configuration that is Debian's and has the suite.

    Raises `MirrorUnknown` with what to set.
    """
    if setting:
        return setting.rstrip("/")
    candidates = apt_mirrors(apt_dir)
    problem = ""
    for candidate in candidates:
        try:
            release = fetch(f"{candidate}/dists/{suite}/InRelease").decode(errors="replace")
        except DownloadFailed as error:
            problem = f" {error}"
            continue
        if re.search(r"^Origin: Debian$", release, re.MULTILINE):
            return candidate
    if candidates:
        raise MirrorUnknown(f"None of apt's mirrors has Debian {suite}.{problem} {_ADVICE}")
    raise MirrorUnknown(f"No mirror of Debian is configured in {apt_dir}. {_ADVICE}")


def apt_mirrors(apt_dir: Path) -> list[str]:
    """The addresses of what may be mirrors of Debian in `sources.list`, `*.list` and `*.sources`, as apt reads them."""
    parts = apt_dir / "sources.list.d"
    lists = [apt_dir / "sources.list", *sorted(parts.glob("*.list"))]
    found: list[str] = []
    for path in lists:
        if path.is_file():
            found += _one_line_entries(path.read_text(errors="replace"))
    for path in sorted(parts.glob("*.sources")):
        found += _deb822_entries(path.read_text(errors="replace"))
    addresses = [address for uri in found for address in _addresses(uri)]
    return list(dict.fromkeys(addresses))


def _one_line_entries(text: str) -> Iterator[str]:
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[[^\]]*\]\s*)?(\S+)\s+(\S+)\s+([^#]*)", line)
        if match and match[2] in _SUITES and "main" in match[3].split():
            yield match[1]


def _deb822_entries(text: str) -> Iterator[str]:
    without_comments = re.sub(r"^#.*\n?", "", text, flags=re.MULTILINE)
    for stanza in re.split(r"\n\s*\n", without_comments):
        fields = {
            name.lower(): value.split()
            for name, value in re.findall(r"^([\w-]+):((?:.*)(?:\n[ \t].*)*)", stanza, re.MULTILINE)
        }
        enabled = [word.lower() for word in fields.get("enabled", ["yes"])]
        is_binary = "deb" in fields.get("types", [])
        is_main = bool(_SUITES & set(fields.get("suites", []))) and "main" in fields.get("components", [])
        if is_binary and is_main and enabled == ["yes"]:
            yield from fields.get("uris", [])


def _addresses(uri: str) -> Iterator[str]:
    """One address, or those in the file that a `mirror+file:` entry names."""
    if uri.startswith(("http://", "https://")):
        yield uri.rstrip("/")
    elif uri.startswith(("mirror+file:", "mirror:file:")):
        listed = Path(urlsplit(uri.split("+", 1)[-1]).path)
        if listed.is_file():
            for line in listed.read_text().splitlines():
                if line.strip() and not line.startswith("#"):
                    yield from _addresses(line.split()[0])
