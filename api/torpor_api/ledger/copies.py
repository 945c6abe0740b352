"""Manifests for forks that are yet to be made: known before they are stored, and condemned if there will be no fork.

Conditions COPY_REGISTERED_FIRST and COPIES_CONDEMNED of docs/protocol.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, delete, insert

from torpor_api.ledger.schema import condemned, condemned_machines, copies
from torpor_worker.ledger import HeadMoved


def expect(connection: Connection, keys: dict[str, str]) -> None:
    """Manifests are going to be stored under these keys, for machines of these names."""
    if keys:
        rows = [{"machine": machine, "manifest_key": key} for machine, key in keys.items()]
        connection.execute(insert(copies), rows)


def turn_into_save(connection: Connection, machine: str, key: str) -> None:
    """The machine is being made, and the manifest is its own. Raises `HeadMoved` if it was given up."""
    mine = delete(copies).where(copies.c.machine == machine, copies.c.manifest_key == key)
    if not connection.execute(mine).rowcount:
        raise HeadMoved(f"{key} was given up")


def give_up(connection: Connection, names: Iterable[str] | None = None) -> dict[str, str]:
    """There will be no machines of these names (None: of all): condemn their keys, and what was stored for them.

    Gives names and keys of what was condemned; a copy that has become a machine's save is none of it.
    """
    gone = delete(copies) if names is None else delete(copies).where(copies.c.machine.in_(list(names)))
    rows = connection.execute(gone.returning(copies.c.machine, copies.c.manifest_key)).all()
    if rows:
        connection.execute(insert(condemned_machines), [{"name": row.machine} for row in rows])
        connection.execute(insert(condemned), [{"object_key": row.manifest_key} for row in rows])
    return {row.machine: row.manifest_key for row in rows}
