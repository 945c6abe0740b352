"""When a failed request is sent again, and when it is given up."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx2

from ._calls import Call
from ._errors import FileNotFound, KeyNotFound, MachineNotFound, ServerUnreachable, api_error

_DELETED = (MachineNotFound, KeyNotFound, FileNotFound)
_JITTER = random.SystemRandom()
_STATUSES_RETRIED = frozenset({429, 502, 503, 504})
_STATUSES_OF_PROXIES = frozenset({502, 504})
_NOT_OF_THE_NETWORK = (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError)
_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)


@dataclass(frozen=True)
class RetryPolicy:
    """How patient a client is with a network or a server that fails. Delays double from the first to the longest.

    >>> patient = torpor.RetryPolicy(total_seconds=3600)
    >>> client = torpor.Client(retry=patient)
    """

    total_seconds: float = 60.0
    """A server that has answered before, or answers that it cannot now, is asked again for so long."""
    first_contact_seconds: float = 3.0
    """A server that has never answered this client is probably not there: it is asked again for so long only."""
    first_delay_seconds: float = 0.1
    longest_delay_seconds: float = 3.0

    def delay_seconds(self, failures: int) -> float:
        """The wait after so many failures in a row, before jitter.

        >>> torpor.RetryPolicy().delay_seconds(3)
        0.4
        """
        return min(self.first_delay_seconds * 2.0 ** min(failures - 1, 16), self.longest_delay_seconds)


@dataclass
class Contact:
    """Whether a client has had any answer from its server yet."""

    made: bool = False


class Attempts:
    """The attempts at one call: each failure gives the seconds to wait before the next, or raises."""

    def __init__(
        self, call: Call, policy: RetryPolicy, contact: Contact, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._call = call
        self._policy = policy
        self._contact = contact
        self._clock = clock
        self._failures = 0
        self._perhaps_done = False
        self._failing_since = 0.0

    def progress(self) -> None:
        """Something new came: the failures before are forgotten."""
        self._contact.made = True
        self._failures = 0

    def failed(self, error: httpx2.TransportError | None) -> float:
        """No whole answer came. Raises `ServerUnreachable` when it is enough."""
        if isinstance(error, _NOT_OF_THE_NETWORK):
            raise ServerUnreachable(f"The request could not be sent: {error}.") from error
        if not isinstance(error, _NOT_SENT):
            self._perhaps_done = True
        if isinstance(error, httpx2.ReadTimeout) and self._call.patient:
            self._failures = 0  # it took the request, and the work goes on: join that again
            return 0.0
        delay = self._next_delay(None)
        if self._perhaps_done and not self._call.repeatable:
            raise ServerUnreachable(
                f"The connection broke: {_reason(error)}.",
                hint="It may have been done, or not: look before you repeat it.",
            ) from error
        if delay is None:
            raise ServerUnreachable(
                f"The server does not answer: {_reason(error)}.",
                hint="Is it running? `torpor serve` starts one; TORPOR_URL says which one is asked.",
            ) from error
        return delay

    def answered(self, status: int, body: object, retry_after: str | None) -> float | None:
        """It was answered with this status; None if all is well. Raises `ApiError` for what another try cannot mend."""
        self._contact.made = True
        if 200 <= status < 300:
            return None
        error = api_error(status, body)
        if isinstance(error, _DELETED) and self._call.method == "DELETE" and self._perhaps_done:
            return None  # an earlier attempt deleted it, and only its answer was lost
        if status in _STATUSES_OF_PROXIES:
            self._perhaps_done = True
        if status not in _STATUSES_RETRIED or (self._perhaps_done and not self._call.repeatable):
            raise error
        delay = self._next_delay(retry_after)
        if delay is None:
            raise error
        return delay

    def _next_delay(self, retry_after: str | None) -> float | None:
        now = self._clock()
        if self._failures == 0:
            self._failing_since = now
        self._failures += 1
        left = self._patience - (now - self._failing_since)
        delay = self._policy.delay_seconds(self._failures) * _JITTER.uniform(0.5, 1.0)
        if retry_after is not None and retry_after.isdigit():
            delay = max(delay, float(retry_after))
        return delay if delay <= left else None

    @property
    def _patience(self) -> float:
        return self._policy.total_seconds if self._contact.made else self._policy.first_contact_seconds


def _reason(error: httpx2.TransportError | None) -> str:
    if error is None:
        return "its answer ends in the middle"
    text = str(error) or type(error).__name__
    return text[:1].lower() + text[1:] if text[:1].isupper() and not text[:2].isupper() else text
