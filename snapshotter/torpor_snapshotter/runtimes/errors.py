"""What can go wrong with a runtime; each message is a sentence that says what to do."""

from __future__ import annotations


class RuntimeProblem(Exception):
    """A runtime cannot be built, handed over or used."""


class RuntimeMissing(RuntimeProblem):
    """No runtime is installed."""


class WrongDigest(RuntimeProblem):
    """A file is not the one that its lock or archive names; it is refused."""


class MirrorUnknown(RuntimeProblem):
    """The host's package configuration names no mirror of Debian."""


class DownloadFailed(RuntimeProblem):
    """A file could not be fetched after several tries."""


class NotOnMirror(DownloadFailed):
    """The mirror no longer has (or never had) this file."""
