"""Images on the local disk: room for one before it is written, and whether it is whole after."""

from __future__ import annotations

import shutil
from pathlib import Path

from torpor_worker.sandbox import SandboxError

FILES = ("checkpoint.img", "pages.img", "pages_meta.img")

MARGIN_BYTES = 64 * 1024**2
"""What must be free beside the pages: the sandbox's own state, and what is written meanwhile."""

_PAGE_BYTES = 4096


def make_folder(image: Path, memory_bytes: int) -> None:
    """Make the folder of a new image of a sandbox that uses so much memory, if the disk has room for it.

    Raises `SandboxError`, with nothing changed.
    """
    try:
        image.mkdir(mode=0o700)
    except OSError as error:
        raise SandboxError(f"Cannot make the image folder {image}: {error.strerror}.") from error
    try:
        check_room(image, memory_bytes)
    except SandboxError:
        image.rmdir()
        raise


def check_room(folder: Path, memory_bytes: int) -> None:
    """Raise `SandboxError` unless the disk of `folder` has room for an image of a sandbox that uses that much."""
    free = shutil.disk_usage(folder).free
    if free < memory_bytes + MARGIN_BYTES:
        needed = (memory_bytes + MARGIN_BYTES) // 1024**2
        raise SandboxError(
            f"Not enough disk for an image in {folder}: {needed} MiB needed, {free // 1024**2} MiB free."
        )


def check_whole(image: Path) -> None:
    """Raise `SandboxError` unless an image is whole."""
    sizes = {name: (image / name).stat().st_size if (image / name).exists() else 0 for name in FILES}
    # `runsc` ends with status 0 also when a full disk has cut its pages short.
    if not sizes["checkpoint.img"] or not sizes["pages_meta.img"] or sizes["pages.img"] % _PAGE_BYTES:
        raise SandboxError(f"The image in {image} is not whole: {sizes}.")
    if shutil.disk_usage(image).free == 0:
        raise SandboxError(f"The disk of {image} is full; the image may be cut short.")
