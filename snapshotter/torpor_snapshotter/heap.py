"""What glibc's allocator does with memory that was freed."""

from __future__ import annotations

import ctypes
from typing import Final

_M_MMAP_THRESHOLD: Final = -3  # from malloc.h
_LARGE_BUFFER_BYTES: Final = 128 << 10

_libc = ctypes.CDLL(None)


def give_large_buffers_back() -> None:
    """Have freed chunks leave the process: by itself glibc soon keeps buffers of their size in each thread's heap."""
    mallopt = getattr(_libc, "mallopt", None)
    if mallopt is not None:  # where there is none, nothing needs to be set
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BUFFER_BYTES)


def give_back() -> None:
    """Give free memory between what is in use back too; it walks the whole heap, so not while somebody waits."""
    malloc_trim = getattr(_libc, "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
