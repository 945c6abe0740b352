"""Names of machines for the shell to complete."""

from __future__ import annotations

import threading

PATIENCE_SECONDS = 2.0


def machine_names(incomplete: str) -> list[tuple[str, str]]:
    """Names that begin with what was typed, each with its state and tags; none if the server does not say them in time.

    It may write nothing, whatever happens: it is called while somebody types.
    """
    found: list[tuple[str, str]] = []
    asker = threading.Thread(target=_ask, args=(found,), name="machine names", daemon=True)
    asker.start()
    asker.join(PATIENCE_SECONDS)
    return [(name, help) for name, help in tuple(found) if name.startswith(incomplete)]


def _ask(found: list[tuple[str, str]]) -> None:
    from .._client import Client  # noqa: PLC0415 - only completion needs it here
    from .._errors import TorporError  # noqa: PLC0415
    from .._retry import RetryPolicy  # noqa: PLC0415

    try:
        with Client(retry=RetryPolicy(total_seconds=0, first_contact_seconds=0)) as client:
            infos = [machine.info for machine in client.machines() if machine.info]
    except TorporError:
        return
    for info in infos:
        tags = " ".join(f"{name}={value}" for name, value in sorted(info.tags.items()))
        found.append((info.name, f"{info.state or ''} {info.alias or ''} {tags}".strip()))
        if info.alias is not None:
            found.append((info.alias, f"{info.state or ''} {info.name} {tags}".strip()))
