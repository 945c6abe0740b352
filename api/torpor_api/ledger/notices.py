"""What a machine's users should know (notices), and what its operators can look up (events)."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, delete, func, insert, select, update

from torpor_api.ledger.database import Statement
from torpor_api.ledger.moments import moment, now
from torpor_api.ledger.results import storable
from torpor_api.ledger.rows import Event, Notice
from torpor_api.ledger.schema import events, machines, notices

NOTICES_KEPT = 50
EVENTS_KEPT = 1000
LOST = "effects_lost"
EXPIRED = "expired"

COLUMNS = (notices.c.id, notices.c.code, notices.c.message, notices.c.seqs, notices.c.at, notices.c.delivered)
_UNREAD = Statement(
    select(*COLUMNS)
    .join(machines, machines.c.id == notices.c.machine_id)
    .where(machines.c.name == bindparam("machine"), notices.c.delivered == 0)
    .order_by(notices.c.id)
)


def leave(connection: Connection, machine_id: int, code: str, message: str, seqs: list[int]) -> None:
    """Leave a notice; those of the same code that nobody has read are replaced, and very old ones are forgotten.

    One that names instructions whose effects are lost is replaced only by one that names them too.
    """
    mine = notices.c.machine_id == machine_id
    unread = connection.execute(
        select(notices.c.id, notices.c.seqs).where(mine, notices.c.code == code, notices.c.delivered == 0)
    )
    replaced = [row.id for row in unread if code != LOST or set(json.loads(row.seqs)) <= set(seqs)]
    connection.execute(delete(notices).where(notices.c.id.in_(replaced)))
    connection.execute(
        insert(notices).values(
            machine_id=machine_id, code=code, message=storable(message), seqs=json.dumps(seqs), at=now()
        )
    )
    oldest_kept = select(notices.c.id).where(mine).order_by(notices.c.id.desc()).offset(NOTICES_KEPT - 1).limit(1)
    connection.execute(delete(notices).where(mine, notices.c.id < oldest_kept.scalar_subquery()))


def clear(connection: Connection, machine_id: int, codes: tuple[str, ...]) -> None:
    """Forget notices of these codes, or all."""
    condition = notices.c.code.in_(codes) if codes else notices.c.id.is_not(None)
    connection.execute(delete(notices).where(notices.c.machine_id == machine_id, condition))


def unread(connection: Connection, machine: str) -> list[Notice]:
    """A machine's notices that nobody was told, oldest first."""
    rows = _UNREAD.run(connection, machine=machine).fetchall()
    return [notice(*row) for row in rows]


def notice(number: int, code: str, message: str, seqs: str, at: int, delivered: int) -> Notice:
    """The notice that the columns hold."""
    return Notice(number, code, message, json.loads(seqs), moment(at), bool(delivered))


def deliver(connection: Connection, machine: str, up_to: int) -> None:
    """Mark notices as told."""
    machine_id = select(machines.c.id).where(machines.c.name == machine).scalar_subquery()
    connection.execute(
        update(notices)
        .where(notices.c.machine_id == machine_id, notices.c.id <= up_to, notices.c.delivered == 0)
        .values(delivered=1)
    )


def record(connection: Connection, machine: str, action: str, fields: dict[str, Any]) -> None:
    """Write an event, and forget very old ones; nothing happens if the machine is deleted."""
    machine_id = connection.scalar(select(machines.c.id).where(machines.c.name == machine))
    if machine_id is None:
        return
    mine = events.c.machine_id == machine_id
    connection.execute(
        insert(events).values(machine_id=machine_id, at=now(), action=action, fields=json.dumps(fields, default=str))
    )
    oldest_kept = select(events.c.id).where(mine).order_by(events.c.id.desc()).offset(EVENTS_KEPT - 1).limit(1)
    forget_events(connection, machine_id, events.c.id < oldest_kept.scalar_subquery())


def forget_events(connection: Connection, machine_id: int, which: ColumnElement[bool]) -> None:
    """Forget the oldest events; the newest of them becomes an event `expired` that says how many there were."""
    gone = connection.execute(
        select(events.c.id, events.c.action, events.c.fields)
        .where(events.c.machine_id == machine_id, which)
        .order_by(events.c.id)
    ).all()
    if not gone or (len(gone) == 1 and gone[0].action == EXPIRED):
        return
    count = sum(json.loads(row.fields)["events"] if row.action == EXPIRED else 1 for row in gone)
    connection.execute(
        update(events).where(events.c.id == gone[-1].id).values(action=EXPIRED, fields=json.dumps({"events": count}))
    )
    connection.execute(delete(events).where(events.c.machine_id == machine_id, events.c.id < gone[-1].id))


def oldest_event(connection: Connection, machine_id: int) -> int:
    """When the oldest event that is kept was; the end of time if there is none."""
    query = select(func.min(events.c.at)).where(events.c.machine_id == machine_id, events.c.action != EXPIRED)
    oldest = connection.scalar(query)
    return 2**62 if oldest is None else int(oldest)


def history(connection: Connection, machine: str, limit: int) -> list[Event]:
    """A machine's newest events, newest first."""
    query = select(events).join(machines).where(machines.c.name == machine).order_by(events.c.id.desc()).limit(limit)
    return [Event(row.id, moment(row.at), row.action, json.loads(row.fields)) for row in connection.execute(query)]
