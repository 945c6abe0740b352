"""E2B's exceptions, as far as they are raised here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .._errors import DiskFull, FileNotFound, InvalidPath, IsAFolder, NotAFile, NotAFolder


class SandboxException(Exception):
    """Something went wrong in a sandbox."""

    status_code: int | None = None
    """Always None."""


class NotFoundException(SandboxException):
    """Something is not there."""


class FileNotFoundException(NotFoundException):
    """A file or a folder is not there."""


class InvalidArgumentException(SandboxException):
    """What was asked for cannot be."""


class NotEnoughSpaceException(SandboxException):
    """The machine's disk is full."""


class TimeoutException(SandboxException):
    """A command was ended because its time was over."""


@contextmanager
def in_their_words() -> Iterator[None]:
    """While this is entered, what is wrong with files is raised as E2B raises it; all else as ours."""
    try:
        yield
    except FileNotFound as error:
        raise FileNotFoundException(str(error)) from error
    except (IsAFolder, NotAFolder, NotAFile, InvalidPath) as error:
        raise InvalidArgumentException(str(error)) from error
    except DiskFull as error:
        raise NotEnoughSpaceException(str(error)) from error
