"""What a snapshotter process is told when it starts."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Config:
    """Read once, at the start."""

    socket_fd: int
    """An inherited, connected Unix stream socket: requests come in, answers go out, and its end is the process's."""
    parent_pid: int
    """Whoever started the process, which ends when that one does."""
    store_url: str
    keys_url: str
    """Where machines' keys are; see `torpor_snapshotter.key_store_url`."""
    cache_folder: Path | None
    """Where to keep what was read of a store that is not on this host's disk."""
    cache_bytes: int
    """How much of it; 0: none."""


def read_config(arguments: Sequence[str], environment: Mapping[str, str]) -> Config:
    """Flags over `TORPOR_STORE_URL`. Wrong ones end the process with a sentence and status 2."""
    parser = argparse.ArgumentParser(prog="torpor_snapshotter", description="Images to stored snapshots and back.")
    parser.add_argument("--socket-fd", type=int, required=True)
    parser.add_argument("--parent-pid", type=int, required=True)
    store_url = environment.get("TORPOR_STORE_URL")
    parser.add_argument("--store-url", default=store_url, required=store_url is None)
    parser.add_argument("--keys-url", required=True)
    parser.add_argument("--cache-folder", type=Path)
    parser.add_argument("--cache-bytes", type=int, default=0)
    read = parser.parse_args(arguments)
    return Config(
        socket_fd=read.socket_fd,
        parent_pid=read.parent_pid,
        store_url=read.store_url,
        keys_url=read.keys_url,
        cache_folder=read.cache_folder,
        cache_bytes=read.cache_bytes,
    )
