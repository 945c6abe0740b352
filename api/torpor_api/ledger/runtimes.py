"""Runtimes that snapshots need: where the store has them, which are quarantined, and which nothing needs."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, and_, bindparam, case, delete, exists, func, insert, or_, select, update

from torpor_api.errors import RuntimeQuarantined
from torpor_api.ledger.database import Statement
from torpor_api.ledger.moments import now
from torpor_api.ledger.schema import condemned, machines, runtime_objects, runtimes, snapshots
from torpor_snapshotter.runtime import Runtime
from torpor_worker.errors import quarantine_sentence
from torpor_worker.ledger import KeptRuntime

_QUARANTINE = Statement(
    select(runtimes.c.series, runtimes.c.quarantine_reason)
    .select_from(
        machines.outerjoin(
            snapshots,
            and_(snapshots.c.machine_id == machines.c.id, snapshots.c.generation == machines.c.head_generation),
        ).join(
            runtimes,
            or_(
                runtimes.c.series == snapshots.c.series,
                and_(snapshots.c.series.is_(None), runtimes.c.newest == 1),
            ),
        )
    )
    .where(machines.c.id == bindparam("machine"), runtimes.c.quarantined_at.is_not(None))
)
ANY_QUARANTINED = select(func.count()).where(runtimes.c.quarantined_at.is_not(None)).scalar_subquery()
"""How many runtimes are quarantined: almost always none."""


def register(connection: Connection, runtime: Runtime, *, newest: bool) -> bool:
    """Know a runtime that is installed here; False if it is known with another sandbox binary, which stays so."""
    known = connection.execute(select(runtimes).where(runtimes.c.series == runtime.series)).first()
    if known is None:
        connection.execute(
            insert(runtimes).values(
                series=runtime.series,
                runsc_version=runtime.runsc_version,
                runsc_sha256=runtime.runsc_sha256,
                rootfs_sha256=runtime.rootfs_sha256,
            )
        )
    if newest:
        connection.execute(update(runtimes).values(newest=case((runtimes.c.series == runtime.series, 1), else_=0)))
    return known is None or known.runsc_sha256 == runtime.runsc_sha256


def not_kept(connection: Connection) -> list[tuple[str, str]]:
    """Series, and SHA-256 of the binary, of what new machines or snapshots need and the store does not have."""
    needed = or_(runtimes.c.newest == 1, exists().where(snapshots.c.series == runtimes.c.series))
    query = select(runtimes.c.series, runtimes.c.runsc_sha256).where(runtimes.c.object_key.is_(None), needed)
    return [(row.series, row.runsc_sha256) for row in connection.execute(query.order_by(runtimes.c.newest.desc()))]


def kept(connection: Connection, series: str) -> KeptRuntime | None:
    """Where the store has a runtime, if it does."""
    row = connection.execute(
        select(runtimes.c.object_key, runtimes.c.object_sha256).where(
            runtimes.c.series == series, runtimes.c.object_key.is_not(None)
        )
    ).first()
    return None if row is None else KeptRuntime(row.object_key, row.object_sha256)


def newest(connection: Connection) -> str | None:
    """The series that new machines were given last."""
    return connection.scalar(select(runtimes.c.series).where(runtimes.c.newest == 1))


def allot(connection: Connection, series: str, keys: Iterable[str]) -> bool:
    """Register the keys of what a runtime needs in the store, before it is put there, in place of earlier ones.

    False, and no change, while one of them is condemned: it is about to be deleted.
    """
    wanted = set(keys)
    if any(key in wanted for key in connection.scalars(select(condemned.c.object_key))):
        return False
    mine = runtime_objects.c.series == series
    earlier = set(connection.scalars(select(runtime_objects.c.object_key).where(mine)))
    connection.execute(delete(runtime_objects).where(mine))
    connection.execute(insert(runtime_objects), [{"series": series, "object_key": key} for key in sorted(wanted)])
    _condemn(connection, earlier - wanted)
    return True


def commit(connection: Connection, series: str, runsc_sha256: str, place: KeptRuntime) -> None:
    """All of it is in the store; nothing happens if another binary was admitted meanwhile."""
    connection.execute(
        update(runtimes)
        .where(runtimes.c.series == series, runtimes.c.runsc_sha256 == runsc_sha256)
        .values(object_key=place.key, object_sha256=place.sha256)
    )


def admit(connection: Connection, series: str, runsc_sha256: str) -> None:
    """Another sandbox binary takes the place of a runtime's; the store has it from the next start on."""
    connection.execute(
        update(runtimes)
        .where(runtimes.c.series == series)
        .values(runsc_sha256=runsc_sha256, object_key=None, object_sha256=None)
    )


def quarantine(connection: Connection, series: str, reason: str | None) -> bool:
    """Wake no machine of a runtime for instructions any more (None: do so again); False if it is not known."""
    values = {"quarantined_at": None if reason is None else now(), "quarantine_reason": reason}
    return connection.execute(update(runtimes).where(runtimes.c.series == series).values(**values)).rowcount > 0


def quarantined(connection: Connection) -> dict[str, str]:
    """Every quarantined series, and why it is."""
    query = select(runtimes.c.series, runtimes.c.quarantine_reason).where(runtimes.c.quarantined_at.is_not(None))
    return {row.series: row.quarantine_reason for row in connection.execute(query)}


def quarantine_of(connection: Connection, machine_id: int) -> str | None:
    """The sentence to refuse instructions with if the machine's head, or what it begins on, is quarantined."""
    row = _QUARANTINE.first(connection, machine=machine_id)
    return None if row is None else quarantine_sentence(*row)


def refuse_quarantined(connection: Connection, machine_id: int) -> None:
    """Raise `RuntimeQuarantined` if the machine is not to run instructions."""
    if (reason := quarantine_of(connection, machine_id)) is not None:
        raise RuntimeQuarantined(reason)


def users(connection: Connection, series: str) -> list[tuple[str, int]]:
    """Machines that need a runtime, and how many snapshots of each do."""
    query = (
        select(machines.c.name, func.count().label("needed"))
        .join(snapshots, snapshots.c.machine_id == machines.c.id)
        .where(snapshots.c.series == series)
        .group_by(machines.c.id, machines.c.name)
        .order_by(machines.c.id)
    )
    return [(row.name, row.needed) for row in connection.execute(query)]


def described(connection: Connection) -> dict[str, tuple[str, ...]]:
    """Words about each runtime that is known."""
    query = (
        select(runtimes, func.count(snapshots.c.machine_id.distinct()).label("machine_count"))
        .outerjoin(snapshots, snapshots.c.series == runtimes.c.series)
        .group_by(runtimes.c.series)
    )
    found = {}
    for row in connection.execute(query):
        words = [f"needed by {row.machine_count} machines"] if row.machine_count else []
        words += ["in the store"] if row.object_key is not None else []
        words += [f"quarantined ({row.quarantine_reason})"] if row.quarantined_at is not None else []
        found[row.series] = tuple(words)
    return found


def forget(connection: Connection, series: str) -> bool:
    """Nothing needs it: condemn what the store has of it and of no other runtime. False if it is not known."""
    mine = runtime_objects.c.series == series
    earlier = set(connection.scalars(select(runtime_objects.c.object_key).where(mine)))
    connection.execute(delete(runtime_objects).where(mine))
    known = connection.execute(delete(runtimes).where(runtimes.c.series == series)).rowcount > 0
    _condemn(connection, earlier)
    return known


def _condemn(connection: Connection, keys: set[str]) -> None:
    shared = set(connection.scalars(select(runtime_objects.c.object_key)))
    if unneeded := sorted(keys - shared):
        connection.execute(insert(condemned), [{"object_key": key} for key in unneeded])
