"""Images on the local disk: captures on their way to the store, and copies of what is stored."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MARKER: Final = "stored.json"
_MACHINE: Final = re.compile(r"[A-Za-z0-9]+")


@dataclass(frozen=True, eq=False, slots=True)
class _Files:
    """The files of a whole image; forks share those of the machine that they came from."""

    sizes: dict[int, int]
    """By inode."""

    @property
    def size_bytes(self) -> int:
        """Of all of them."""
        return sum(self.sizes.values())


@dataclass(slots=True)
class _Local:
    """One image. Its folder is of use once `files` is set."""

    folder: Path
    files: _Files | None = None
    stored: bool = False
    users: int = 0

    @property
    def image(self) -> Path:
        """The folder with the files of the image, and nothing else."""
        return self.folder / "image"


class LocalImages:
    """Images in a folder, at most `limit_bytes` of them but for those that are not stored, or in use.

    `new` gives a place; `keep` says that the image there is whole; `mark_stored` that the store has it, which is when
    it may be given up, and when it is trusted after a restart. The least recently used goes first. Everything else
    that is in the folder at the start is removed: a capture that was not stored was never committed.

    Files of whole images are never written to again: forks have them as hard links, counted once.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        """Look through `folder`, which is this object's own."""
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._images: dict[tuple[str, int], _Local] = {}
        """In order of their last use."""
        self._load()

    @property
    def size_bytes(self) -> int:
        """What the images that are whole take together."""
        return sum(files.size_bytes for files in {image.files for image in self._images.values()} if files is not None)

    async def new(self, machine: str, generation: int) -> Path:
        """A path in a folder for an image yet to be made; an earlier try at the same one is removed."""
        if not _MACHINE.fullmatch(machine):
            raise ValueError(f"{machine!r} is not the name of a machine.")
        earlier = self._images.pop((machine, generation), None)
        if earlier and earlier.users:
            raise RuntimeError(f"The image of generation {generation} of {machine} is in use.")
        folder = self._folder / machine / str(generation)
        await asyncio.to_thread(_make_anew, folder)
        image = self._images[machine, generation] = _Local(folder)
        return image.image

    async def keep(self, machine: str, generation: int, *, fetched: bool = False) -> int:
        """The image at `new`'s path is whole: it can be used, and is counted; its size in bytes.

        One that was `fetched` may be given up, and is not trusted after a restart: to make it durable would cost a wake
        more than it is worth, since the next save takes its place. Nor does a wake wait until others have made room:
        the next save sees to that.
        """
        image = self._images[machine, generation]
        image.files = _Files(await asyncio.to_thread(_inodes, image.image))
        image.stored = fetched
        if not fetched:
            await self._make_room()
        return image.files.size_bytes

    async def mark_stored(self, machine: str, generation: int) -> None:
        """The store has this image: it may be given up, older ones of the machine are, and a restart keeps it."""
        image = self._images[machine, generation]
        await asyncio.to_thread(write_marker, image.folder)
        image.stored = True
        older = [key for key in self._images if key[0] == machine and key[1] < generation]
        for key in older:
            if key in self._images and self._may_go(self._images[key]):
                await self._remove(key)
        await self._make_room()

    def path(self, machine: str, generation: int) -> Path | None:
        """The folder of a whole image, None if there is none; it counts as a use."""
        image = self._images.get((machine, generation))
        if image is None or image.files is None:
            return None
        self._images[machine, generation] = self._images.pop((machine, generation))
        with suppress(FileNotFoundError):  # one that is not stored, or was fetched, has none
            os.utime(image.folder / MARKER)
        return image.image

    @contextmanager
    def use(self, machine: str, generation: int) -> Iterator[Path | None]:
        """As `path`, and the image stays where it is meanwhile."""
        path = self.path(machine, generation)
        if path is None:
            yield None
            return
        image = self._images[machine, generation]
        image.users += 1
        try:
            yield path
        finally:
            image.users -= 1

    async def share(self, machine: str, generation: int, forks: Iterable[str]) -> None:
        """Let new machines have this image as their generation 0; nothing happens if it is not there.

        What they have is as trusted after a restart as this one. One that cannot be made is left out: the store has it.
        """
        with self.use(machine, generation) as path:
            if path is None:
                return
            files = self._images[machine, generation].files
            for fork in forks:
                folder = self._folder / fork / "0"
                if files is not None and await asyncio.to_thread(_link, path.parent, folder, files.sizes):
                    self._images[fork, 0] = _Local(folder, files, stored=True)

    async def forget(self, machine: str, generation: int) -> None:
        """Remove one image: a capture that failed or was refused. No error if there is none."""
        if (machine, generation) in self._images:
            await self._remove((machine, generation))

    async def drop(self, machine: str) -> None:
        """Remove every image of a machine."""
        for key in [key for key in self._images if key[0] == machine]:
            await self.forget(*key)
        await asyncio.to_thread(shutil.rmtree, self._folder / machine, ignore_errors=True)

    async def _make_room(self) -> None:
        for key in [key for key, image in self._images.items() if self._may_go(image)]:
            if self.size_bytes <= self._limit_bytes:
                return
            if key in self._images and self._may_go(self._images[key]):
                await self._remove(key)

    @staticmethod
    def _may_go(image: _Local) -> bool:
        return image.stored and not image.users

    async def _remove(self, key: tuple[str, int]) -> None:
        image = self._images.pop(key)
        await asyncio.to_thread(_remove, image.folder)

    def _load(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found: list[tuple[float, tuple[str, int], _Local]] = []
        different: dict[frozenset[int], _Files] = {}
        for machine in self._folder.iterdir():
            for folder in machine.iterdir() if machine.is_dir() else ():
                if not folder.name.isdecimal() or trusted_bytes(folder) is None:
                    _remove_whatever(folder)
                else:
                    last_use = (folder / MARKER).stat().st_mtime
                    files = _Files(_inodes(folder / "image"))
                    files = different.setdefault(frozenset(files.sizes), files)
                    image = _Local(folder, files, stored=True)
                    found.append((last_use, (machine.name, int(folder.name)), image))
            if not any(key[0] == machine.name for _, key, _ in found):
                _remove_whatever(machine)
        self._images = {key: image for _, key, image in sorted(found, key=lambda entry: entry[0])}


def _make_anew(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)


def _remove(folder: Path) -> None:
    # The marker first: what is left of a removal that was cut short is not trusted.
    (folder / MARKER).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _remove_whatever(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        # A process of the last start may be writing into it still; what stays of it is not trusted either.
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink()


def _file_sizes(image: Path) -> dict[str, int]:
    return {file.name: file.stat().st_size for file in sorted(image.iterdir())}


def _inodes(image: Path) -> dict[int, int]:
    return {facts.st_ino: facts.st_size for facts in (file.stat() for file in image.iterdir())}


def _link(source: Path, folder: Path, files: dict[int, int]) -> bool:
    """Let a new folder have the image of another one, and its marker; False if that has not these files any more."""
    try:
        _make_anew(folder)
        (folder / "image").mkdir(mode=0o700)
        for file in (source / "image").iterdir():
            (folder / "image" / file.name).hardlink_to(file)
        if _inodes(folder / "image") != files:  # it was dropped meanwhile
            raise FileNotFoundError(source)
        if (source / MARKER).exists():
            # Not flushed: the files are, and a marker that does not fit what a power cut has left is not trusted.
            marker = folder / f"{MARKER}.new"
            marker.write_bytes((source / MARKER).read_bytes())
            marker.rename(folder / MARKER)
    except OSError:
        _remove(folder)
        return False
    return True


def write_marker(folder: Path) -> None:
    """Make an image durable, and then the note that it is, with the sizes of its files."""
    image = folder / "image"
    for path in [*image.iterdir(), image]:
        _sync(path)
    marker = folder / f"{MARKER}.new"
    marker.write_text(json.dumps(_file_sizes(image)))
    _sync(marker)
    marker.rename(folder / MARKER)
    _sync(folder)


def trusted_bytes(folder: Path) -> int | None:
    """The size of an image that an earlier process left whole; None if it did not."""
    try:
        sizes: dict[str, int] = json.loads((folder / MARKER).read_text())
        if sizes != _file_sizes(folder / "image"):
            return None
        return sum(sizes.values())
    except (OSError, ValueError):
        return None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
