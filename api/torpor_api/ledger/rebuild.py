"""Writes a planned ledger into a database that has none, in one transaction: all of it, or nothing."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, delete, exists, insert, inspect, select, update

from torpor_api.ledger import accounts as account_rows
from torpor_api.ledger import notices
from torpor_api.ledger.database import driver, open_engine
from torpor_api.ledger.entries import SEED_BYTES, accept_reseed
from torpor_api.ledger.facts import SETTINGS
from torpor_api.ledger.migrate import migrate
from torpor_api.ledger.moments import moment
from torpor_api.ledger.results import failure
from torpor_api.ledger.running import NOWHERE
from torpor_api.ledger.schema import (
    accounts,
    condemned,
    condemned_machines,
    entries,
    identity,
    kept_objects,
    lines,
    machine_tags,
    machines,
    pack_references,
    packs,
    runtime_objects,
    runtimes,
    saves,
    snapshot_commands,
    snapshots,
    templates,
)
from torpor_api.rebuild.plan import Plan, PlannedMachine, PlannedSnapshot
from torpor_api.rebuild.survey import FoundSnapshot
from torpor_snapshotter.key import pack_key
from torpor_snapshotter.runtimes.description import Description
from torpor_worker.command import CommandSpec
from torpor_worker.ledger import EntryKind

LOST_CODE: Final = (
    'raise RuntimeError("The code of this instruction is not known any more: the database was rebuilt from the store.")'
)
LOST_COMMAND: Final = CommandSpec(
    "echo 'This command is not known any more: the database was rebuilt from the store.' >&2; exit 1"
).to_text()
DEFAULTS: Final = {"memory_bytes": 1 << 30, "idle_seconds": 60.0, "template": None}
"""Settings of machines whose manifests do not say them."""
UNKNOWN: Final = (
    "Not known any more is what it did and was told since: instructions, results, output and history, "
    "and changes of settings, tags and pins."
)


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What was written."""

    machines: tuple[PlannedMachine, ...]
    api_keys: dict[str, str]
    """Of accounts that there were not before, by name."""


class DatabaseInUse(Exception):
    """The database is not a new one; the message says why and what to do."""


def refuse_used(url: str, data_dir: Path) -> None:
    """Raise `DatabaseInUse` if there are machines in the database; see `open_engine` for that. Changes nothing."""
    engine = open_engine(url, data_dir)
    if engine.url.database is None or not Path(engine.url.database).is_file():
        return
    with engine.connect() as connection:
        if inspect(connection).has_table(machines.name):
            _refuse_machines(connection)


def rebuild(url: str, data_dir: Path, plan: Plan, *, add: bool = False) -> Rebuilt:
    """Write the plan into the database, which is made if there is none; with `add` only the machines that it lacks.

    Whoever dies, all of it is there or nothing. Raises `DatabaseInUse`.
    """
    engine = open_engine(url, data_dir)
    migrate(engine)
    with engine.connect() as connection:
        raw = driver(connection)
        raw.execute("BEGIN IMMEDIATE")
        try:
            done = _add(connection, plan) if add else _fill(connection, plan)
            raw.execute("COMMIT")
        except BaseException:
            if raw.in_transaction:
                raw.execute("ROLLBACK")
            raise
    engine.dispose()
    return done


def _fill(connection: Connection, plan: Plan) -> Rebuilt:
    _refuse_machines(connection)
    _refuse_another(connection, plan)
    for table in (templates, packs, condemned, condemned_machines, kept_objects, runtimes):
        connection.execute(delete(table))
    if plan.owner is not None:
        connection.execute(update(identity).values(id=plan.owner))
    _write_packs(connection, list(plan.templates))
    for template in plan.templates:
        _write_template(connection, template)
    for runtime in plan.runtimes:
        _write_runtime(connection, runtime)
    _keep(connection, set(plan.kept))
    return _write_machines(connection, plan.machines)


def _add(connection: Connection, plan: Plan) -> Rebuilt:
    """What could not be read before may have its key now; what was deleted since stays so."""
    if connection.scalar(select(identity.c.id)) != plan.owner:
        raise DatabaseInUse("The database is another store's. Name the right store with --store-url.")
    known = {*connection.scalars(select(machines.c.name)), *connection.scalars(select(condemned_machines.c.name))}
    given_up = set(connection.scalars(select(condemned.c.object_key)))
    added = tuple(
        machine for machine in plan.machines if machine.name not in known and given_up.isdisjoint(machine.objects)
    )
    still_kept = set(connection.scalars(select(kept_objects.c.object_key))) & set(plan.kept)
    connection.execute(delete(kept_objects))
    _keep(connection, still_kept)
    return _write_machines(connection, added)


def _keep(connection: Connection, keys: set[str]) -> None:
    if keys:
        connection.execute(insert(kept_objects), [{"object_key": key} for key in sorted(keys)])


def _write_machines(connection: Connection, some: tuple[PlannedMachine, ...]) -> Rebuilt:
    api_keys = {}
    known = set(connection.scalars(select(accounts.c.name)))
    for account in sorted({machine.account for machine in some} - known):
        secret = secrets.token_urlsafe(32)
        account_rows.create(connection, account)
        account_rows.add_key(connection, account, secret)
        api_keys[account] = f"{account}.{secret}"
    _write_packs(connection, [one.found for machine in some for one in machine.snapshots])
    for machine in sorted(some, key=lambda machine: machine.head.created_at, reverse=True):
        _write_machine(connection, machine)
    return Rebuilt(some, api_keys)


def _refuse_machines(connection: Connection) -> None:
    if connection.scalar(select(exists().select_from(machines))):
        raise DatabaseInUse(
            "The database has machines, and is never rebuilt over them. Name another one with --database-url, "
            "move it away first, or let --add bring back only what it lacks."
        )


def _refuse_another(connection: Connection, plan: Plan) -> None:
    other = connection.scalar(select(identity.c.id)) != plan.owner
    if other and connection.scalar(select(exists().select_from(packs))):
        raise DatabaseInUse("The database has objects in another store. Name a new one with --database-url.")


def _write_packs(connection: Connection, found: list[FoundSnapshot]) -> None:
    """Know every pack that these need, if it is not known."""
    sizes = {pack.key: pack.size_bytes for one in found for pack in one.packs}
    # As a save counts them: the manifest with the pack that was made with it.
    sizes.update({pack_key(one.key): one.stored_bytes for one in found if pack_key(one.key) in sizes})
    for key in connection.scalars(select(packs.c.object_key)):
        sizes.pop(key, None)
    if sizes:
        connection.execute(insert(packs), [{"object_key": key, "size_bytes": size} for key, size in sizes.items()])


def _write_template(connection: Connection, found: FoundSnapshot) -> None:
    connection.execute(
        insert(templates).values(
            name=found.fields["template"],
            version=found.fields["version"],
            manifest_key=found.key,
            pack_key=pack_key(found.key),
            manifest_sha256=found.sha256,
        )
    )


def _write_runtime(connection: Connection, found: Description) -> None:
    connection.execute(
        insert(runtimes).values(
            series=found.series,
            runsc_version=found.runsc_version,
            runsc_sha256=found.runsc.sha256,
            rootfs_sha256=found.rootfs.sha256,
            object_key=found.key,
            object_sha256=found.sha256,
        )
    )
    connection.execute(insert(runtime_objects), [{"series": found.series, "object_key": key} for key in found.keys])


def _write_machine(connection: Connection, machine: PlannedMachine) -> None:
    settings = {**DEFAULTS, **{name: machine.settings[name] for name in SETTINGS if name in machine.settings}}
    account = select(accounts.c.id).where(accounts.c.name == machine.account).scalar_subquery()
    if settings.get("alias") is not None:  # it may have gone from one to the other: the last that said so has it
        taken = select(machines.c.id).where(machines.c.account_id == account, machines.c.alias == settings["alias"])
        if connection.scalar(taken) is not None:
            settings["alias"] = None
    machine_id = connection.scalar(
        insert(machines)
        .values(
            name=machine.name,
            account_id=account,
            created_at=machine.created_at,
            epoch=machine.epoch,
            line=machine.line,
            next_line=machine.line + 1,
            next_generation=machine.next_generation,
            next_seq=machine.next_seq,
            next_position=machine.next_position,
            head_generation=machine.head.generation,
            rebuilt_line=machine.line,
            rebuilt_seq=machine.next_seq,
            **settings,
        )
        .returning(machines.c.id)
    )
    if machine_id is None:
        raise AssertionError("an insert returns its row")
    if machine.tags:
        tags = [{"machine_id": machine_id, "name": name, "value": value} for name, value in machine.tags.items()]
        connection.execute(insert(machine_tags), tags)
    for line in machine.lines:
        connection.execute(
            insert(lines).values(
                machine_id=machine_id,
                line=line.line,
                parent=line.parent,
                generation=line.generation,
                position=line.position,
                undo=line.undo,
            )
        )
    for snapshot in machine.snapshots:
        _write_snapshot(connection, machine_id, machine, snapshot)
    if machine.head.running is not None:
        _write_running(connection, machine_id, machine.head, machine.head.running)
    _write_commands(connection, machine_id, machine)
    if machine.head.base:  # else it would have the randomness of the machine that it was forked from
        seed = secrets.token_bytes(SEED_BYTES)
        accept_reseed(
            connection,
            machine_id,
            seed,
            position=machine.next_position,
            next_seq=machine.next_seq,
            line=machine.line,
        )
    _tell(connection, machine_id, machine)


def _write_snapshot(
    connection: Connection, machine_id: int, machine: PlannedMachine, snapshot: PlannedSnapshot
) -> None:
    found, running = snapshot.found, snapshot.running or {}
    number = {"machine_id": machine_id, "generation": snapshot.generation}
    connection.execute(insert(saves).values(**number, epoch=snapshot.epoch, manifest_key=found.key))
    connection.execute(
        insert(snapshots).values(
            **number,
            line=snapshot.line,
            parent=snapshot.parent,
            position=snapshot.position,
            running_seq=running.get("seq"),
            running_used_seconds=running.get("used_seconds", 0.0),
            output_offset=0,  # what came before is not known any more
            manifest_sha256=found.sha256,
            stored_bytes=found.stored_bytes,
            image_bytes=found.image_bytes,
            series=found.fields["series"],
            created_at=snapshot.created_at,
            pinned=int(snapshot.generation in machine.pinned),
            base=int(snapshot.base),
            awaited_commands=sum(not command["background"] for command in snapshot.commands),
        )
    )
    for command in snapshot.commands:
        connection.execute(
            insert(snapshot_commands).values(
                **number,
                seq=command["seq"],
                attempt=1,
                used_seconds=command["used_seconds"],
                output_offset=0,  # what came before is not known any more
                said_bytes=command["said_bytes"],
                background=int(command["background"]),
                again=int(command["again"]),
            )
        )
    connection.execute(insert(pack_references), [{**number, "object_key": pack.key} for pack in found.packs])


def _write_running(connection: Connection, machine_id: int, head: PlannedSnapshot, running: dict[str, Any]) -> None:
    """The instruction that runs in the head: it goes on with the next wake."""
    connection.execute(
        insert(entries).values(
            machine_id=machine_id,
            kind=EntryKind.EXECUTE,
            seq=running["seq"],
            position=head.position,
            line=head.line,
            attempt=1,
            timeout_seconds=running.get("timeout_seconds", running.get("used_seconds", 0.0)),
            code=running.get("code") or LOST_CODE,
            stdin=running.get("stdin"),
            stdin_open=int(running.get("stdin_open", False)),
            accepted_at=head.created_at,
            started_at=head.created_at,
        )
    )


def _write_commands(connection: Connection, machine_id: int, machine: PlannedMachine) -> None:
    """Commands that run in a snapshot: those of the head go on with the next wake, others if it is gone back to."""
    inside = {command["seq"] for command in machine.head.commands}
    known = {command["seq"]: (snapshot, command) for snapshot in machine.snapshots for command in snapshot.commands}
    lost = failure("CommandLost", "How this command ended is not known: the database was rebuilt from the store.")
    for seq, (snapshot, command) in known.items():
        over = {
            "finished_at": snapshot.created_at,
            "error": lost.error,
            "error_detail": lost.error_detail,
            "runtime_ms": 0,
            "ended_behind": NOWHERE,
            "ended_line": NOWHERE,
        }
        connection.execute(
            insert(entries).values(
                machine_id=machine_id,
                kind=EntryKind.COMMAND,
                seq=seq,
                position=command["position"],
                line=snapshot.line,
                attempt=1,
                timeout_seconds=command["timeout_seconds"],
                code=command["code"] or LOST_COMMAND,
                background=int(command["background"]),
                accepted_at=snapshot.created_at,
                started_at=snapshot.created_at,
                **({} if seq in inside and not command["again"] else over),
            )
        )


def _tell(connection: Connection, machine_id: int, machine: PlannedMachine) -> None:
    head = machine.head
    message = (
        f"The server's database was lost and rebuilt from the store. The machine goes on from generation "
        f"{head.generation}, saved on {moment(head.created_at):%Y-%m-%d at %H:%M:%S UTC}."
    )
    if machine.newest > head.generation:
        message += f" A later one, up to generation {machine.newest}, is in the store but is not used."
    notices.leave(connection, machine_id, "rebuilt", f"{message} {UNKNOWN}", [])
    fields = {"generation": head.generation, "newest": machine.newest, "next_seq": machine.next_seq}
    notices.record(connection, machine.name, "rebuilt", fields)
