"""The seam between machines and the folder of images on the local disk."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol


class Images(Protocol):
    """Images on the local disk: captures on their way to the store, and copies of what is stored.

    Bounded: the least recently used go first, never one that is not stored, nor one in use.
    """

    async def new(self, machine: str, generation: int) -> Path:
        """A path for an image yet to be made; an earlier try at the same one is removed."""
        ...

    async def keep(self, machine: str, generation: int, *, fetched: bool = False) -> int:
        """The image at `new`'s path is whole; its size in bytes. One that was fetched is in the store."""
        ...

    async def mark_stored(self, machine: str, generation: int) -> None:
        """The store has this image: it may be given up when room is needed."""
        ...

    async def share(self, machine: str, generation: int, forks: Iterable[str]) -> None:
        """Let new machines have this image as their generation 0; nothing happens if it is not there."""
        ...

    def use(self, machine: str, generation: int) -> AbstractContextManager[Path | None]:
        """The folder of a whole image, None if there is none; it stays where it is meanwhile."""
        ...

    async def forget(self, machine: str, generation: int) -> None:
        """Remove one image; no error if there is none."""
        ...

    async def drop(self, machine: str) -> None:
        """Remove every image of a machine."""
        ...
