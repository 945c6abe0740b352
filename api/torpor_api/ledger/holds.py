"""Who may run a machine: sessions take machines over, holds are acquired, released and given up.

Conditions of docs/protocol: HELD, EPOCH, TAKE_OVER, LIVE_SESSION, LOG_IS_QUEUE, RELEASE_AT_HEAD,
RELEASE_NOTHING_BEHIND.
"""

from __future__ import annotations

import secrets
from dataclasses import replace

from sqlalchemy import Connection, and_, bindparam, case, delete, exists, func, insert, or_, select, update

from torpor_api.ledger import copies, lines, running, saves
from torpor_api.ledger.database import Statement
from torpor_api.ledger.lines import NO_LIMIT, Reach
from torpor_api.ledger.moments import now
from torpor_api.ledger.results import failure
from torpor_api.ledger.schema import accounts, entries, machine_tags, machines, notices, sessions
from torpor_worker.ledger import Durability, Fenced, Hold, Recovery

Session = str

_HELD = Statement(
    select(machines.c.id).where(
        machines.c.name == bindparam("machine"),
        machines.c.epoch == bindparam("of_epoch"),
        machines.c.session_id == bindparam("session"),
    )
)
_ACQUIRE = Statement(
    update(machines)
    .where(
        machines.c.name == bindparam("machine"),
        machines.c.parked_reason.is_(None),
        or_(machines.c.session_id.is_(None), machines.c.session_id == bindparam("session")),
        exists().where(sessions.c.id == bindparam("session")),
    )
    .values(
        session_id=bindparam("session"),
        epoch=machines.c.epoch + 1,
        ready=0,
        # It was held: its process is gone.
        recovering=case((machines.c.session_id == bindparam("session"), 1), else_=0),
    )
    .returning(machines.c.id)
)
_HOLD = Statement(
    select(
        machines.c.name,
        accounts.c.name,
        machines.c.epoch,
        machines.c.line,
        machines.c.head_generation,
        machines.c.memory_bytes,
        machines.c.idle_seconds,
        machines.c.template,
        machines.c.rebuilt_line,
        machines.c.durability,
        machines.c.recovery,
        machines.c.replay_seconds,
        machines.c.recovery_tries,
        machines.c.recovery_deaths,
    )
    .join(accounts, accounts.c.id == machines.c.account_id)
    .where(machines.c.id == bindparam("of_machine"))
)
_TAGS = Statement(
    select(machine_tags.c.name, machine_tags.c.value).where(machine_tags.c.machine_id == bindparam("of_machine"))
)


def held(connection: Connection, session: Session | None, hold: Hold) -> int:
    """The id of the hold's machine. Raises `Fenced` if the hold has passed."""
    row = _HELD.first(connection, machine=hold.machine, of_epoch=hold.epoch, session=session)
    if row is None:
        raise Fenced(f"{hold.machine} is not held under epoch {hold.epoch} any more")
    return int(row[0])


def open_session(connection: Connection, worker: str) -> Session:
    """A new session, which takes over every machine of the dead ones in one statement."""
    session = secrets.token_hex(16)
    connection.execute(insert(sessions).values(id=session, worker=worker, opened_at=now()))
    connection.execute(
        update(machines)
        .where(machines.c.session_id.is_not(None))
        .values(session_id=session, epoch=machines.c.epoch + 1, ready=0, recovering=1)
    )
    connection.execute(delete(sessions).where(sessions.c.id != session))
    saves.condemn_abandoned(connection)
    copies.give_up(connection)
    return session


def mine(connection: Connection, session: Session | None) -> list[str]:
    """Machines of this session, oldest first."""
    query = select(machines.c.name).where(machines.c.session_id == session).order_by(machines.c.id)
    return list(connection.scalars(query))


def waiting(connection: Connection) -> list[str]:
    """Machines with unfinished entries that nobody runs, in the order of their oldest such entry."""
    query = (
        select(machines.c.name)
        .join(entries, entries.c.machine_id == machines.c.id)
        .where(running.IN_THE_WAY, machines.c.session_id.is_(None), machines.c.parked_reason.is_(None))
        .group_by(machines.c.id, machines.c.name)
        .order_by(func.min(entries.c.id))
    )
    return list(connection.scalars(query))


def acquire(connection: Connection, session: Session, machine: str) -> Hold | None:
    """Set the session and raise the epoch, unless it is parked, gone, or another live session's."""
    changed = _ACQUIRE.first(connection, machine=machine, session=session)
    if changed is None:
        return None
    (machine_id,) = changed
    saves.condemn_abandoned(connection, machine_id)
    return hold_of(connection, machine_id)


def settings(connection: Connection, machine_id: int, hold: Hold) -> Hold:
    """The hold with the machine's settings and tags as they are now; whose it is, and its head, stay."""
    now_set = hold_of(connection, machine_id)
    return replace(
        hold,
        memory_bytes=now_set.memory_bytes,
        idle_seconds=now_set.idle_seconds,
        tags=now_set.tags,
        durability=now_set.durability,
        recovery=now_set.recovery,
        replay_seconds=now_set.replay_seconds,
    )


def ready(connection: Connection, session: Session | None, hold: Hold) -> None:
    """From now on an entry accepted while the machine is free is started at once."""
    machine_id = held(connection, session, hold)
    connection.execute(update(machines).where(machines.c.id == machine_id).values(ready=1, recovering=0))


def go_back(connection: Connection, session: Session | None, hold: Hold, to: int | None) -> Hold:
    """Make generation `to` the head, on a new line and under a new epoch. Raises ValueError if it is not kept."""
    machine_id = held(connection, session, hold)
    if to is not None and saves.snapshot(connection, machine_id, to) is None:
        raise ValueError(f"{hold.machine} has no generation {to}")
    if hold.head is not None:
        saves.set_aside(connection, machine_id, hold.head.generation)
    lines.begin(connection, machine_id, Reach(hold.line, -1 if to is None else to, NO_LIMIT))
    connection.execute(
        update(machines).where(machines.c.id == machine_id).values(recovering=1, recovery_tries=0, recovery_deaths=0)
    )
    saves.condemn_abandoned(connection, machine_id)
    return hold_of(connection, machine_id)


def release(connection: Connection, session: Session | None, hold: Hold, head: int, *, draining: bool) -> bool:
    """Clear the session if the head is `head` and holds everything; see `Ledger.release`."""
    machine_id = held(connection, session, hold)
    snapshot = saves.snapshot(connection, machine_id, head)
    if snapshot is None or not (snapshot.quiescent or draining):
        return False
    of_machine = entries.c.machine_id == machine_id
    in_the_way = running.in_the_way_of(machine_id, snapshot, draining=draining)
    behind = and_(of_machine, entries.c.position > snapshot.position, entries.c.rolled_back == 0)
    released = connection.execute(
        update(machines)
        .where(
            machines.c.id == machine_id,
            machines.c.head_generation == head,
            ~exists().where(in_the_way),
            ~exists().where(behind),
        )
        .values(session_id=None, ready=0, recovering=0, recovery_tries=0, recovery_deaths=0)
    ).rowcount
    if released and not draining:  # a clean sleep ends what users have been told already
        connection.execute(delete(notices).where(notices.c.machine_id == machine_id, notices.c.delivered == 1))
    return bool(released)


def park(connection: Connection, session: Session | None, hold: Hold, reason: str, seq: int | None) -> None:
    """Clear the session, remember why and what is to blame, and answer every unfinished entry with an error."""
    machine_id = held(connection, session, hold)
    result = failure("MachineParked", reason)
    connection.execute(
        update(entries)
        .where(entries.c.machine_id == machine_id, entries.c.seq.is_not(None), entries.c.finished_at.is_(None))
        .values(
            finished_at=now(),
            error=result.error,
            error_detail=result.error_detail,
            runtime_ms=0,
            undone=case((and_(entries.c.started_at.is_not(None), ~running.SLEEPS), 1), else_=0),
            ended_behind=running.NOWHERE,
            ended_line=running.NOWHERE,
        )
    )
    connection.execute(
        update(machines)
        .where(machines.c.id == machine_id)
        .values(session_id=None, ready=0, recovering=0, parked_reason=reason, parked_seq=seq)
    )


def hold_of(connection: Connection, machine_id: int) -> Hold:
    """What a worker is told of a machine that it holds."""
    row = _HOLD.first(connection, of_machine=machine_id)
    if row is None:
        raise AssertionError("the machine of a hold exists")
    name, account, epoch, line, head, memory_bytes, idle_seconds, template, rebuilt_line, *policies = row
    durability, recovery, replay_seconds, tries, deaths = policies
    return Hold(
        machine=name,
        account=account,
        epoch=epoch,
        line=line,
        head=None if head is None else saves.snapshot(connection, machine_id, head),
        memory_bytes=memory_bytes,
        idle_seconds=idle_seconds,
        tags=dict(_TAGS.run(connection, of_machine=machine_id).fetchall()),
        template=template,
        rebuilt_from=lines.rebuilt_from(connection, machine_id, rebuilt_line),
        durability=Durability(durability),
        recovery=Recovery(recovery),
        replay_seconds=replay_seconds,
        asked_position=lines.asked_position(connection, machine_id, line) if line else -1,
        tries=tries,
        deaths=deaths,
    )
