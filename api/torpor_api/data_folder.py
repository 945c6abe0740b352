"""The data folder of one server, and the lock that makes it the only one."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK_NAME = "serve.lock"


class DataFolderUnusableError(Exception):
    """The data folder cannot be used; the message says why and what to do."""


@contextmanager
def data_folder(path: Path) -> Iterator[Path]:
    """Make the folder if it is missing, for its owner only, and hold its lock. Raises `DataFolderUnusableError`.

    The lock is the whole lease of this server over the machines in it. Processes that are started do not inherit it.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
        lock = (path / LOCK_NAME).open("a+")
    except OSError as error:
        raise DataFolderUnusableError(f"The data folder {path} cannot be used: {error.strerror}.") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataFolderUnusableError(
                f"Another server uses the data folder {path}. Stop it, or name another folder with --data-dir."
            ) from None
        yield path
