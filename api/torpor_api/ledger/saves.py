"""Saves and snapshots: generations of machines, and what becomes of their objects.

Conditions of docs/protocol: HEAD_IS_EXPECTED, REGISTERED_FIRST, STILL_THERE, COMMIT_REFERS, FORK_REFERS, REFERRED_KEPT,
TEMPLATE_KEPT, ABANDONED_CONDEMNED.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, bindparam, delete, exists, func, insert, select, union_all, update

from torpor_api.ledger import running
from torpor_api.ledger.database import Statement
from torpor_api.ledger.lines import Reach, descent
from torpor_api.ledger.moments import moment, now
from torpor_api.ledger.schema import (
    condemned,
    condemned_machines,
    copies,
    kept_objects,
    machines,
    pack_references,
    packs,
    runtime_objects,
    saves,
    snapshots,
    templates,
)
from torpor_snapshotter.key import pack_key
from torpor_worker.ledger import HeadMoved, RunningCommand, Snapshot
from torpor_worker.snapshots import Stored

_ABANDONED_SAVES = (
    select(saves.c.machine_id, saves.c.generation, saves.c.manifest_key)
    .join(machines, machines.c.id == saves.c.machine_id)
    .outerjoin(
        snapshots, and_(snapshots.c.machine_id == saves.c.machine_id, snapshots.c.generation == saves.c.generation)
    )
    .where(snapshots.c.generation.is_(None), saves.c.epoch < machines.c.epoch)
)
_ABANDONED = Statement(_ABANDONED_SAVES)
_ABANDONED_OF = Statement(_ABANDONED_SAVES.where(saves.c.machine_id == bindparam("of_machine")))


def allot(connection: Connection, machine_id: int, machine: str) -> tuple[int, str]:
    """The next generation and the key of its manifest, which is known from now on, as is its pack's."""
    row = connection.execute(
        update(machines)
        .where(machines.c.id == machine_id)
        .values(next_generation=machines.c.next_generation + 1)
        .returning(machines.c.next_generation, machines.c.epoch)
    ).one()
    generation = row.next_generation - 1
    key = f"machines/{machine}/{generation:08}-{secrets.token_hex(16)}"
    connection.execute(
        insert(saves).values(machine_id=machine_id, generation=generation, epoch=row.epoch, manifest_key=key)
    )
    connection.execute(insert(packs).values(object_key=pack_key(key), size_bytes=0))
    return generation, key


def commit(connection: Connection, machine_id: int, expected_head: int | None, snapshot: Snapshot) -> None:
    """Make it the head. Raises `HeadMoved`, or ValueError if it was never allotted."""
    known = connection.execute(
        select(saves.c.manifest_key, snapshots.c.manifest_sha256)
        .outerjoin(
            snapshots, and_(snapshots.c.machine_id == saves.c.machine_id, snapshots.c.generation == saves.c.generation)
        )
        .where(saves.c.machine_id == machine_id, saves.c.generation == snapshot.generation)
    ).first()
    if known is not None and known.manifest_sha256 == snapshot.manifest_sha256:
        return
    row = connection.execute(
        select(machines.c.head_generation, machines.c.line, machines.c.next_position).where(machines.c.id == machine_id)
    ).one()
    if row.head_generation != expected_head:
        raise HeadMoved(f"the head is generation {row.head_generation}, not {expected_head}")
    if known is None or known.manifest_sha256 is not None or known.manifest_key != snapshot.manifest_key:
        raise ValueError(f"generation {snapshot.generation} was not allotted to {snapshot.manifest_key}")
    if not -1 <= snapshot.position < row.next_position:
        raise ValueError(f"position {snapshot.position} was never allotted")
    known_packs = set(connection.scalars(select(packs.c.object_key).where(packs.c.object_key.in_(snapshot.packs))))
    if gone := set(snapshot.packs) - known_packs:
        raise HeadMoved(f"what it builds on is gone: {', '.join(sorted(gone))}")
    connection.execute(
        insert(snapshots).values(
            machine_id=machine_id,
            generation=snapshot.generation,
            line=row.line,
            parent=expected_head,
            position=snapshot.position,
            running_seq=snapshot.running_seq,
            running_used_seconds=snapshot.running_used_seconds,
            output_offset=snapshot.output_offset,
            running_attempt=snapshot.running_attempt,
            running_said_bytes=snapshot.running_said_bytes,
            awaited_commands=sum(not each.background for each in snapshot.commands),
            manifest_sha256=snapshot.manifest_sha256,
            stored_bytes=snapshot.stored_bytes,
            image_bytes=snapshot.image_bytes,
            series=snapshot.series,
            created_at=now(),
        )
    )
    running.write(connection, machine_id, snapshot)
    for key in snapshot.packs:
        connection.execute(
            insert(pack_references).values(machine_id=machine_id, generation=snapshot.generation, object_key=key)
        )
    own = pack_key(snapshot.manifest_key)
    connection.execute(update(packs).where(packs.c.object_key == own).values(size_bytes=snapshot.stored_bytes))
    connection.execute(update(machines).where(machines.c.id == machine_id).values(head_generation=snapshot.generation))


def begin_with(connection: Connection, machine_id: int, source: Snapshot, stored: Stored) -> None:
    """Give a new machine generation 0, which is a state of another's. Raises `HeadMoved` if that is gone."""
    known_packs = set(connection.scalars(select(packs.c.object_key).where(packs.c.object_key.in_(stored.packs))))
    if set(stored.packs) - known_packs:
        raise HeadMoved("what it builds on is gone")
    connection.execute(
        insert(saves).values(machine_id=machine_id, generation=0, epoch=0, manifest_key=stored.manifest_key)
    )
    connection.execute(
        insert(snapshots).values(
            machine_id=machine_id,
            generation=0,
            line=0,
            parent=None,
            position=source.position,
            running_used_seconds=0.0,
            output_offset=0,
            manifest_sha256=stored.manifest_sha256,
            stored_bytes=stored.stored_bytes,
            image_bytes=stored.image_bytes,
            series=source.series,
            created_at=now(),
            base=1,
        )
    )
    for key in stored.packs:
        connection.execute(insert(pack_references).values(machine_id=machine_id, generation=0, object_key=key))
    connection.execute(update(machines).where(machines.c.id == machine_id).values(head_generation=0, next_generation=1))


def snapshot(connection: Connection, machine_id: int, generation: int) -> Snapshot | None:
    """A committed snapshot that is not condemned."""
    row = connection.execute(_query(machine_id).where(snapshots.c.generation == generation)).first()
    if row is None:
        return None
    return _snapshot(
        row, _packs_of(connection, machine_id, generation), running.read(connection, machine_id, generation)
    )


def line_of_descent(connection: Connection, machine_id: int) -> list[Snapshot]:
    """The head and the snapshots it came from, newest first; those that a rollback set aside are not among them."""
    row = connection.execute(
        select(machines.c.line, machines.c.head_generation).where(machines.c.id == machine_id)
    ).one()
    return (
        []
        if row.head_generation is None
        else of_reach(connection, machine_id, descent(connection, machine_id, row.line, generation=row.head_generation))
    )


def of_reach(connection: Connection, machine_id: int, reaches: list[Reach]) -> list[Snapshot]:
    """The snapshots that a state has behind it, newest first."""
    limits = {reach.line: reach.generation for reach in reaches}
    return [one for one in all_kept(connection, machine_id) if one.generation <= limits.get(one.line, -1)]


def all_kept(connection: Connection, machine_id: int) -> list[Snapshot]:
    """Every committed snapshot that is not condemned, newest first."""
    rows = connection.execute(_query(machine_id).order_by(snapshots.c.generation.desc()))
    referred, inside = _packs_of(connection, machine_id), running.read(connection, machine_id)
    return [_snapshot(row, referred, inside) for row in rows]


def pin(connection: Connection, machine_id: int, generation: int, *, pinned: bool) -> bool:
    """Keep a generation for ever, or as long as any other; False if there is no such snapshot."""
    mine = and_(snapshots.c.machine_id == machine_id, snapshots.c.generation == generation)
    return connection.execute(update(snapshots).where(mine).values(pinned=int(pinned))).rowcount > 0


def set_aside(connection: Connection, machine_id: int, generation: int) -> None:
    """Remember that a recovery could not use a generation."""
    mine = and_(snapshots.c.machine_id == machine_id, snapshots.c.generation == generation)
    connection.execute(update(snapshots).where(mine).values(set_aside=1))


def condemn_abandoned(connection: Connection, machine_id: int | None = None) -> None:
    """Condemn saves that can never be committed: the machine has changed hands since they began."""
    found = _ABANDONED.run(connection) if machine_id is None else _ABANDONED_OF.run(connection, of_machine=machine_id)
    for machine, generation, manifest_key in found.fetchall():
        condemn(connection, machine, generation, manifest_key)


def condemn_all(connection: Connection, machine_id: int, machine: str) -> None:
    """Condemn the key, and every object, of a machine that is being deleted; what others refer to stays."""
    connection.execute(insert(condemned_machines).values(name=machine))
    mine = list(connection.scalars(select(saves.c.manifest_key).where(saves.c.machine_id == machine_id)))
    referred = select(pack_references.c.object_key).where(pack_references.c.machine_id == machine_id).distinct()
    let_go = {*(pack_key(key) for key in mine), *connection.scalars(referred)}
    connection.execute(delete(saves).where(saves.c.machine_id == machine_id))
    _condemn_objects(connection, mine)
    condemn_packs(connection, let_go)


def condemned_machine_names(connection: Connection) -> list[str]:
    """Deleted machines whose keys are not known to be destroyed."""
    return list(connection.scalars(select(condemned_machines.c.name)))


def forget_condemned_machine(connection: Connection, name: str) -> None:
    """Its key is destroyed."""
    connection.execute(delete(condemned_machines).where(condemned_machines.c.name == name))


def condemned_keys(connection: Connection) -> list[str]:
    """Keys of condemned objects, oldest first."""
    return list(connection.scalars(select(condemned.c.object_key).order_by(condemned.c.id)))


def forget_condemned(connection: Connection, keys: list[str]) -> None:
    """Their objects are gone."""
    for key in keys:
        connection.execute(delete(condemned).where(condemned.c.object_key == key))


def known_keys(connection: Connection) -> set[str]:
    """Keys of objects that are, or may become, part of a snapshot or of a runtime, or that a rebuild could not read."""
    return set(connection.scalars(union_all(*_KNOWN)))


def knows_objects(connection: Connection) -> bool:
    """Whether `known_keys`, or `condemned_keys`, has any."""
    return any(connection.scalar(select(keys.exists())) for keys in (*_KNOWN, select(condemned.c.object_key)))


_KNOWN = (
    select(saves.c.manifest_key),
    select(templates.c.manifest_key),
    select(packs.c.object_key),
    select(runtime_objects.c.object_key),
    select(copies.c.manifest_key),
    select(kept_objects.c.object_key),
)


def condemn(connection: Connection, machine_id: int, generation: int, key: str) -> None:
    """Condemn a save's manifest, and of the packs that it referred to, or made, those that no snapshot refers to."""
    referred = select(pack_references.c.object_key).where(
        pack_references.c.machine_id == machine_id, pack_references.c.generation == generation
    )
    let_go = {pack_key(key), *connection.scalars(referred)}
    connection.execute(delete(saves).where(saves.c.machine_id == machine_id, saves.c.generation == generation))
    _condemn_objects(connection, [key])
    condemn_packs(connection, let_go)


def condemn_packs(connection: Connection, keys: set[str]) -> None:
    """Condemn those of the packs that no snapshot refers to, and that are no template's."""
    still_referred = exists().where(pack_references.c.object_key == packs.c.object_key)
    of_a_template = exists().where(templates.c.pack_key == packs.c.object_key)
    unneeded = delete(packs).where(packs.c.object_key.in_(keys), ~still_referred, ~of_a_template)
    _condemn_objects(connection, sorted(connection.scalars(unneeded.returning(packs.c.object_key))))


def stored_bytes(connection: Connection) -> int:
    """What packs take, and the manifests that came with them."""
    return int(connection.scalar(select(func.coalesce(func.sum(packs.c.size_bytes), 0))) or 0)


def _condemn_objects(connection: Connection, keys: list[str]) -> None:
    if keys:
        connection.execute(insert(condemned), [{"object_key": key} for key in keys])


def _packs_of(connection: Connection, machine_id: int, generation: int | None = None) -> dict[int, list[str]]:
    """Keys of the packs that each snapshot of a machine, or one of them, refers to."""
    query = select(pack_references).where(pack_references.c.machine_id == machine_id)
    if generation is not None:
        query = query.where(pack_references.c.generation == generation)
    referred: dict[int, list[str]] = defaultdict(list)
    for row in connection.execute(query.order_by(pack_references.c.object_key)):
        referred[row.generation].append(row.object_key)
    return referred


def _query(machine_id: int) -> Select[Any]:
    return (
        select(snapshots, saves.c.manifest_key)
        .join(saves, and_(saves.c.machine_id == snapshots.c.machine_id, saves.c.generation == snapshots.c.generation))
        .where(snapshots.c.machine_id == machine_id)
    )


def _snapshot(row: Row[Any], referred: dict[int, list[str]], inside: dict[int, list[RunningCommand]]) -> Snapshot:
    return Snapshot(
        generation=row.generation,
        line=row.line,
        parent=row.parent,
        position=row.position,
        running_seq=row.running_seq,
        running_used_seconds=row.running_used_seconds,
        output_offset=row.output_offset,
        running_attempt=row.running_attempt,
        manifest_key=row.manifest_key,
        manifest_sha256=row.manifest_sha256,
        stored_bytes=row.stored_bytes,
        image_bytes=row.image_bytes,
        series=row.series,
        created_at=moment(row.created_at),
        pinned=bool(row.pinned),
        base=bool(row.base),
        set_aside=bool(row.set_aside),
        packs=tuple(referred.get(row.generation, ())),
        running_said_bytes=row.running_said_bytes,
        commands=tuple(inside.get(row.generation, ())),
    )
