"""API keys that were checked a moment ago, so that a call does not ask the database again."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable

KEPT_SECONDS = 30.0
KEPT = 1024


class Authenticated:
    """Digests of tokens that opened an account; bounded in number and time. Wrong tokens are not kept."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[str, float]] = OrderedDict()

    def account_of(self, token: str) -> str | None:
        """The account that the token opened lately."""
        digest = _digest(token)
        account, until = self._known.get(digest, ("", 0.0))
        if not account:
            return None
        if self._clock() >= until:
            del self._known[digest]
            return None
        return account

    def remember(self, token: str, account: str) -> None:
        """The token was found to open the account."""
        self._known[_digest(token)] = (account, self._clock() + KEPT_SECONDS)
        while len(self._known) > KEPT:
            self._known.popitem(last=False)

    def forget(self) -> None:
        """A key was revoked: each is looked up again."""
        self._known.clear()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
