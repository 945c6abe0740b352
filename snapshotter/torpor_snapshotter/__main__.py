"""A snapshotter process, started by a worker: `python -P -m torpor_snapshotter`."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import sys
from typing import Final

from torpor_snapshotter.config import Config, read_config
from torpor_snapshotter.folder_store import FolderStore
from torpor_snapshotter.heap import give_large_buffers_back
from torpor_snapshotter.key_store_url import BadKeyStoreUrl, open_key_store
from torpor_snapshotter.keys import KeyStore
from torpor_snapshotter.read_cache import ReadCache
from torpor_snapshotter.server import SnapshotterServer
from torpor_snapshotter.store import ObjectStore
from torpor_snapshotter.store_url import BadStoreUrl, open_store

_PR_SET_PDEATHSIG: Final = 1  # from linux/prctl.h
_LONGEST_LINE_BYTES: Final = 4 << 20


def main() -> None:
    """Serve the inherited socket until it closes."""
    config = read_config(sys.argv[1:], os.environ)
    try:
        store, keys = open_store(config.store_url), open_key_store(config.keys_url)
    except (BadStoreUrl, BadKeyStoreUrl) as error:
        sys.exit(str(error))
    # A terminal's Ctrl-C and a service manager's SIGTERM go to every process; the parent decides when this one ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _die_with_parent(config.parent_pid)
    give_large_buffers_back()
    asyncio.run(_serve(config, store, keys))


async def _serve(config: Config, store: ObjectStore, keys: KeyStore) -> None:
    connection = socket.socket(fileno=config.socket_fd)
    connection.setblocking(False)
    reader, writer = await asyncio.open_unix_connection(sock=connection, limit=_LONGEST_LINE_BYTES)
    await SnapshotterServer(store, keys, _cache(config, store)).serve(reader, writer)
    # A thread that digests a runtime would be waited for; nobody needs its result, nor a tidy end of this process.
    sys.stderr.flush()
    os._exit(0)


def _cache(config: Config, store: ObjectStore) -> ReadCache | None:
    if config.cache_folder is None or not config.cache_bytes or isinstance(store, FolderStore):
        return None
    return ReadCache(store, config.cache_folder, config.cache_bytes)


def _die_with_parent(parent_pid: int) -> None:
    """End even if the parent is killed while a disk does not answer and the socket's end goes unnoticed."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent_pid:
        sys.exit("The process that started this one is gone.")


if __name__ == "__main__":
    main()
