"""What is asked of the server about packages, as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ._calls import Call, _machine, _post, answer_seconds, asked_timeout

TIMEOUT_SECONDS = 300.0


def install(
    machine: str,
    packages: str | Sequence[str],
    *,
    upgrade: bool,
    timeout_seconds: float | None,
    idempotency_key: str | None,
) -> Call:
    """An installation, to be answered when it has ended."""
    body = {
        "packages": [packages] if isinstance(packages, str) else list(packages),
        "upgrade": upgrade or None,
        "timeout_seconds": asked_timeout(timeout_seconds),
    }
    patience_seconds = answer_seconds(timeout_seconds, TIMEOUT_SECONDS)
    call = _post(_machine(machine, "/packages"), body, answer_seconds=patience_seconds, patient=True)
    return call if idempotency_key is None else replace(call, idempotency_key=idempotency_key)
