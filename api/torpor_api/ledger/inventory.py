"""What the database says should be in the store, read without a server and without changing anything."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, and_, select

from torpor_api.ledger import saves
from torpor_api.ledger.database import driver, open_engine
from torpor_api.ledger.migrate import SCRIPTS
from torpor_api.ledger.schema import (
    identity,
    kept_objects,
    machines,
    pack_references,
    runtime_objects,
    runtimes,
    snapshots,
    templates,
)
from torpor_api.ledger.schema import saves as save_rows


class NoInventory(Exception):
    """There is no database that can be read; the message says why and what to do."""


@dataclass(frozen=True, slots=True, order=True)
class Need:
    """Who needs objects: a snapshot of a machine, or a template or a runtime, which have no generation."""

    name: str
    generation: int | None
    is_runtime: bool = False


@dataclass(frozen=True, slots=True)
class NeededManifest:
    """A manifest that must be in the store, and the packs that it must have there."""

    need: Need
    key: str
    sha256: str
    packs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NeededRuntime:
    """A runtime that must be in the store: the object that describes it, and what it needs beside."""

    series: str
    key: str
    sha256: str
    parts: tuple[str, ...]

    @property
    def need(self) -> Need:
        """Who needs these objects."""
        return Need(self.series, None, is_runtime=True)


@dataclass(frozen=True, slots=True)
class Inventory:
    """Objects of one ledger."""

    owner: str
    """The ledger's id."""
    manifests: tuple[NeededManifest, ...]
    known: frozenset[str]
    """Keys that a row names: of what is needed, of saves that were never finished, and of what may be deleted."""
    runtimes: tuple[NeededRuntime, ...]
    condemned: frozenset[str]
    """Of these, keys of what the next start deletes."""
    kept: frozenset[str]
    """Of the known ones, keys of what a rebuild of the database could not read, or did not know what to do with."""


def read_inventory(url: str, data_dir: Path) -> Inventory:
    """See `open_engine` for the database. Raises `NoInventory`."""
    engine = open_engine(url, data_dir)
    path = engine.url.database
    if path is None or not Path(path).is_file():
        raise NoInventory(f"There is no database {path}: name the server's data folder with --data-dir.")
    with engine.connect() as connection:
        driver(connection).execute("PRAGMA query_only = ON")
        driver(connection).execute("BEGIN")
        check_version(connection)
        condemned = frozenset(saves.condemned_keys(connection))
        return Inventory(
            owner=str(connection.scalar(select(identity.c.id))),
            manifests=(*_of_snapshots(connection), *_of_templates(connection)),
            known=condemned | saves.known_keys(connection),
            runtimes=_runtimes(connection),
            condemned=condemned,
            kept=frozenset(connection.scalars(select(kept_objects.c.object_key))),
        )


def check_version(connection: Connection) -> None:
    """Raise `NoInventory` if the database is not of this version's schema."""
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    newest = ScriptDirectory.from_config(config).get_current_head()
    if MigrationContext.configure(connection).get_current_revision() != newest:
        raise NoInventory("The database is another version's: start the server of this version once, then stop it.")


def _of_snapshots(connection: Connection) -> list[NeededManifest]:
    packs: dict[tuple[int, int], list[str]] = defaultdict(list)
    for reference in connection.execute(select(pack_references)):
        packs[reference.machine_id, reference.generation].append(reference.object_key)
    query = (
        select(machines.c.name, snapshots, save_rows.c.manifest_key)
        .join(snapshots, snapshots.c.machine_id == machines.c.id)
        .join(
            save_rows,
            and_(save_rows.c.machine_id == snapshots.c.machine_id, save_rows.c.generation == snapshots.c.generation),
        )
        .order_by(machines.c.name, snapshots.c.generation)
    )
    return [
        NeededManifest(
            Need(row.name, row.generation),
            row.manifest_key,
            row.manifest_sha256,
            tuple(sorted(packs[row.machine_id, row.generation])),
        )
        for row in connection.execute(query)
    ]


def _of_templates(connection: Connection) -> list[NeededManifest]:
    query = select(templates).where(templates.c.manifest_sha256.is_not(None)).order_by(templates.c.name)
    return [
        NeededManifest(Need(row.name, None), row.manifest_key, row.manifest_sha256, (row.pack_key,))
        for row in connection.execute(query)
    ]


def _runtimes(connection: Connection) -> tuple[NeededRuntime, ...]:
    parts: dict[str, list[str]] = defaultdict(list)
    for row in connection.execute(select(runtime_objects).order_by(runtime_objects.c.object_key)):
        parts[row.series].append(row.object_key)
    query = select(runtimes).where(runtimes.c.object_key.is_not(None)).order_by(runtimes.c.series)
    return tuple(
        NeededRuntime(
            row.series,
            row.object_key,
            row.object_sha256,
            tuple(key for key in parts[row.series] if key != row.object_key),
        )
        for row in connection.execute(query)
    )
