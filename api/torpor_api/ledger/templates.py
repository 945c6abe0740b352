"""Templates in the store: their manifests, and packs that snapshots of any machine may refer to."""

from __future__ import annotations

import secrets

from sqlalchemy import Connection, delete, insert, select, update

from torpor_api.ledger import saves
from torpor_api.ledger.schema import condemned, condemned_machines, packs, templates
from torpor_snapshotter.key import pack_key
from torpor_worker.ledger import StoredTemplate


def stored(connection: Connection, name: str, version: str) -> StoredTemplate | None:
    """This version of a template, if the store has it."""
    row = connection.execute(
        select(templates).where(
            templates.c.name == name, templates.c.version == version, templates.c.manifest_sha256.is_not(None)
        )
    ).first()
    return None if row is None else StoredTemplate(row.manifest_key, row.manifest_sha256)


def allot(connection: Connection, name: str, version: str) -> str:
    """A key for a template's manifest, known from now on as is its pack's; the earlier version is condemned.

    The second part of the key names what the key store has for it. A pack that snapshots refer to stays.
    """
    earlier = connection.execute(delete(templates).where(templates.c.name == name).returning(templates)).first()
    if earlier is not None:
        connection.execute(insert(condemned_machines).values(name=earlier.manifest_key.split("/")[1]))
        connection.execute(insert(condemned).values(object_key=earlier.manifest_key))
        saves.condemn_packs(connection, {earlier.pack_key})
    key = f"templates/template-{name}-{secrets.token_hex(16)}/image"
    connection.execute(insert(packs).values(object_key=pack_key(key), size_bytes=0))
    connection.execute(insert(templates).values(name=name, version=version, manifest_key=key, pack_key=pack_key(key)))
    return key


def commit(connection: Connection, name: str, stored: StoredTemplate, stored_bytes: int) -> None:
    """It is in the store. Raises ValueError if another key was allotted since."""
    committed = connection.execute(
        update(templates)
        .where(templates.c.name == name, templates.c.manifest_key == stored.manifest_key)
        .values(manifest_sha256=stored.manifest_sha256)
    ).rowcount
    if not committed:
        raise ValueError(f"{stored.manifest_key} is not the key of template {name}")
    own = pack_key(stored.manifest_key)
    connection.execute(update(packs).where(packs.c.object_key == own).values(size_bytes=stored_bytes))
