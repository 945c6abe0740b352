"""Fresh randomness for a machine that was cloned, unless user code has chosen its own seed."""

from __future__ import annotations

import functools
import random
import sys
from typing import Any

_seeded_by_user: set[str] = set()


def watch_seeding() -> None:
    """Remember when user code seeds `random`."""
    random.seed = _watched(random.seed, "random")
    random.setstate = _watched(random.setstate, "random")


def reseed(seed: bytes) -> None:
    """Mix 32 new bytes into `random`, NumPy's legacy generator and OpenSSL."""
    if "random" not in _seeded_by_user:
        random._inst.seed(seed)
    legacy = getattr(sys.modules.get("numpy.random.mtrand"), "_rand", None)
    if legacy is not None and "numpy" not in _seeded_by_user:
        # NumPy forgets the entropy it started with when somebody seeds it.
        if getattr(legacy._bit_generator, "_seed_seq", None) is not None:
            legacy.seed(list(seed))
            legacy._bit_generator._seed_seq = _Ours()
        else:
            _seeded_by_user.add("numpy")
    openssl = sys.modules.get("_ssl")
    if openssl is not None:
        openssl.RAND_add(seed, float(len(seed)))


class _Ours:
    """Stands for entropy that did not come from the user."""


def _watched(function: Any, name: str) -> Any:
    @functools.wraps(function)
    def watched(*args: Any, **kwargs: Any) -> Any:
        if args or kwargs:
            _seeded_by_user.add(name)
        return function(*args, **kwargs)

    return watched
