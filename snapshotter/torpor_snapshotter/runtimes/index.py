"""The signed index of a Debian suite: which versions its mirror has now."""

from __future__ import annotations

import hashlib
import lzma
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from torpor_snapshotter.runtimes.download import fetch
from torpor_snapshotter.runtimes.errors import RuntimeProblem, WrongDigest
from torpor_snapshotter.runtimes.lock import Package

_KEYRING = Path(__file__).with_name("debian-archive-trixie.gpg")
"""The archive's and the release's keys for Debian 13, from its package debian-archive-keyring 2025.1."""

_INDEX = "main/binary-amd64/Packages.xz"


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A package in the index: what to fetch, and the names that it needs, as groups of alternatives."""

    package: Package
    needs: tuple[tuple[str, ...], ...]


def read_index(mirror: str, suite: str) -> dict[str, IndexEntry]:
    """Every package of the suite's main section by name. Raises `RuntimeProblem` if the signature cannot be checked."""
    release = verified(fetch(f"{mirror}/dists/{suite}/InRelease"))
    match = re.search(rf"^ ([0-9a-f]{{64}})\s+\d+ {re.escape(_INDEX)}$", release, re.MULTILINE)
    if match is None:
        raise RuntimeProblem(f"The release file of {suite} on {mirror} names no {_INDEX}.")
    body = fetch(f"{mirror}/dists/{suite}/{_INDEX}")
    if hashlib.sha256(body).hexdigest() != match[1]:
        raise WrongDigest(f"{_INDEX} of {suite} on {mirror} is not the signed one; it may be being updated: try again.")
    return parse_index(lzma.decompress(body).decode())


def parse_index(text: str) -> dict[str, IndexEntry]:
    """The entries of a `Packages` file."""
    entries = {}
    for stanza in text.split("\n\n"):
        fields = dict(re.findall(r"^([\w-]+): (.*)$", stanza, re.MULTILINE))
        if not fields:
            continue
        package = Package(fields["Package"], fields["Version"], fields["Filename"], fields["SHA256"])
        needs = ", ".join(fields[name] for name in ("Pre-Depends", "Depends") if name in fields)
        groups = tuple(
            tuple(re.split(r"[\s:(]", alternative.strip())[0] for alternative in group.split("|"))
            for group in needs.split(",")
            if group.strip()
        )
        entries[package.name] = IndexEntry(package, groups)
    return entries


def verified(release: bytes) -> str:
    """The signed text of an `InRelease` file, signed by a key of Debian 13. Raises `RuntimeProblem`."""
    gpgv = shutil.which("gpgv")
    if gpgv is None:
        raise RuntimeProblem(
            "The mirror no longer has a locked package, and its index cannot be verified without gpgv: install gpgv, "
            "or set TORPOR_DEBIAN_MIRROR to a mirror that keeps old versions."
        )
    with tempfile.TemporaryDirectory() as folder:
        signed, text = Path(folder, "InRelease"), Path(folder, "text")
        signed.write_bytes(release)
        command = [gpgv, "--homedir", folder, "--keyring", str(_KEYRING), "--status-fd", "1"]
        done = subprocess.run(
            [*command, "--output", str(text), str(signed)], capture_output=True, text=True, timeout=60, check=False
        )
        # The exit status is useless: it is 2 when a second signature is by a key that we do not hold.
        words = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("[GNUPG:] ")}
        if "VALIDSIG" not in words or "BADSIG" in words or not text.exists():
            raise RuntimeProblem(f"The suite's release file is not signed by Debian: refused. {done.stderr.strip()}")
        return text.read_text()


def closure(index: dict[str, IndexEntry], wanted: tuple[str, ...], without: tuple[str, ...]) -> list[str]:
    """The names of `wanted` and all they need except `without`, sorted; virtual packages are left out."""
    chosen: set[str] = set()
    open_names = list(wanted)
    while open_names:
        name = open_names.pop()
        if name in chosen:
            continue
        chosen.add(name)
        for group in index[name].needs:
            real = [alternative for alternative in group if alternative in index]
            if real and not set(real) & (chosen | set(wanted) | set(without)):
                open_names.append(real[0])
    return sorted(chosen)
