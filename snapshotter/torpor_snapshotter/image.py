"""Images: the plain files, in one folder, that a checkpoint writes and a restore reads."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path


class BadImage(Exception):
    """A folder is not an image, or changed while it was read; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One file of an image."""

    name: str
    size_bytes: int


def files_of_image(folder: Path) -> tuple[ImageFile, ...]:
    """The files of the image in `folder`, by name. Raises `BadImage`."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise BadImage(f"{folder} is no image: {error.strerror}.") from error
    if not names:
        raise BadImage(f"{folder} is no image: it is empty.")
    return tuple(_describe(folder / name) for name in names)


def read_chunk(path: Path, start: int, length: int) -> bytes:
    """Bytes `start` to `start + length` of a file of an image. Raises `BadImage` if there are fewer."""
    with path.open("rb") as file:
        file.seek(start)
        chunk = file.read(length)
    if len(chunk) < length:
        raise BadImage(f"{path} became shorter while it was read.")
    return chunk


def _describe(path: Path) -> ImageFile:
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise BadImage(f"{path} is no plain file, and cannot be part of an image.")
    return ImageFile(path.name, status.st_size)
