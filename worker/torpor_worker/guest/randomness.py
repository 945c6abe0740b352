"""Fresh randomness for a machine that was cloned, unless user code has chosen its own seed."""

from __future__ import annotations

import functools
import random
import sys
from typing import Any

_seeded_by_user: set[str] = set()
_watching: set[str] = set()


def watch_seeding() -> None:
    """Remember when user code seeds `random`."""
    random.seed = _watched(random.seed, "random")
    random.setstate = _watched(random.setstate, "random")


def reseed(seed: bytes) -> None:
    """Mix 32 new bytes into `random`, NumPy's legacy generator and OpenSSL."""
    if "random" not in _seeded_by_user:
        random._inst.seed(seed)
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        _reseed_numpy(numpy_random, seed)
    openssl = sys.modules.get("_ssl")
    if openssl is not None:
        openssl.RAND_add(seed, float(len(seed)))


def _reseed_numpy(numpy_random: Any, seed: bytes) -> None:
    if "numpy" not in _watching:
        _watching.add("numpy")
        # NumPy forgets the entropy it started with when somebody seeds it.
        if numpy_random.mtrand._rand._bit_generator._seed_seq is None:
            _seeded_by_user.add("numpy")
        for name in ("seed", "set_state"):
            setattr(numpy_random, name, _watched(getattr(numpy_random, name), "numpy"))
    if "numpy" not in _seeded_by_user:
        numpy_random.mtrand._rand.seed(list(seed))


def _watched(function: Any, name: str) -> Any:
    @functools.wraps(function)
    def watched(*args: Any, **kwargs: Any) -> Any:
        if args or kwargs:
            _seeded_by_user.add(name)
        return function(*args, **kwargs)

    return watched
