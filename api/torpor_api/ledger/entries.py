"""The log: entries are accepted, started and finished; a result is committed before anyone sees it.

Conditions of docs/protocol: STARTED_BEFORE_SENT, ONE_AT_A_TIME, FIRST_ANSWER_STAYS, ATTEMPT_COUNTED_FIRST,
ROLLED_BACK_LEFT_OUT.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any, Literal

from sqlalchemy import Connection, Row, and_, bindparam, exists, func, insert, or_, select, update

from torpor_api.errors import MachineNotFound, MachineParked, TooManyUnfinished
from torpor_api.ledger import idempotency as repeats
from torpor_api.ledger import running
from torpor_api.ledger.database import Statement
from torpor_api.ledger.lines import descent
from torpor_api.ledger.moments import now
from torpor_api.ledger.output import INLINE_LIMIT_BYTES, OutputLog, Sequence, begin_attempt
from torpor_api.ledger.results import from_columns, storable, to_columns
from torpor_api.ledger.rows import Accepted, Busy, Idempotency
from torpor_api.ledger.runtimes import ANY_QUARANTINED, refuse_quarantined
from torpor_api.ledger.schema import accounts, entries, machines
from torpor_worker.ledger import EndedBy, Entry, EntryKind, InstructionResult, OutputRecord
from torpor_worker.stdin import Stdin

UNFINISHED_LIMIT = 100
SEED_BYTES = 32

_COLUMNS = (
    entries.c.id,
    entries.c.kind,
    entries.c.seq,
    entries.c.position,
    entries.c.attempt,
    entries.c.timeout_seconds,
    entries.c.code,
    entries.c.seed,
    entries.c.finished_at,
    entries.c.value,
    entries.c.data,
    entries.c.error,
    entries.c.error_detail,
    entries.c.runtime_ms,
    entries.c.exit_code,
    entries.c.exit_signal,
    entries.c.undone,
    entries.c.ended_by,
    entries.c.expired,
    entries.c.body,
    entries.c.background,
    entries.c.target,
    entries.c.ended_behind,
    entries.c.ended_line,
    entries.c.stdin,
    entries.c.stdin_open,
)
_ENDED_LINE = [column.name for column in _COLUMNS].index("ended_line")
_ENTRY = select(*_COLUMNS)

_FOR_ACCEPT = Statement(
    select(
        machines.c.id,
        machines.c.account_id,
        machines.c.ready,
        machines.c.next_seq,
        machines.c.next_position,
        machines.c.line,
        machines.c.parked_reason,
        select(func.count())
        .where(
            entries.c.machine_id == machines.c.id, entries.c.finished_at.is_(None), entries.c.kind == EntryKind.EXECUTE
        )
        .scalar_subquery(),
        ANY_QUARANTINED,
    )
    .join(accounts, accounts.c.id == machines.c.account_id)
    .where(machines.c.name == bindparam("machine"), accounts.c.name == bindparam("account"))
)
_RUNNING_SEQ = Statement(
    select(entries.c.seq)
    .where(
        entries.c.machine_id == bindparam("of_machine"),
        entries.c.finished_at.is_(None),
        entries.c.kind == EntryKind.EXECUTE,
    )
    .order_by(entries.c.started_at.is_(None), entries.c.id)
    .limit(1)
)
_INSERT = Statement(
    insert(entries),
    "machine_id",
    "kind",
    "seq",
    "position",
    "line",
    "attempt",
    "timeout_seconds",
    "code",
    "seed",
    "accepted_at",
    "started_at",
    "finished_at",
    "background",
    "target",
    "stdin",
    "stdin_open",
)
_COUNT_UP = Statement(update(machines).where(machines.c.id == bindparam("of_machine")), "next_seq", "next_position")
_NEXT = Statement(
    _ENTRY.where(
        entries.c.machine_id == bindparam("of_machine"),
        entries.c.finished_at.is_(None),
        or_(entries.c.kind == EntryKind.EXECUTE, entries.c.started_at.is_(None)),
    )
    .order_by(entries.c.started_at.is_(None), entries.c.id)
    .limit(1)
)
_NEXT_BESIDE = Statement(
    _ENTRY.where(
        entries.c.machine_id == bindparam("of_machine"),
        entries.c.finished_at.is_(None),
        entries.c.started_at.is_(None),
        entries.c.kind != EntryKind.EXECUTE,
    )
    .order_by(entries.c.id)
    .limit(1)
)
_START = Statement(
    update(entries).where(entries.c.id == bindparam("entry")),
    "position",
    "line",
    "started_at",
    "attempt",
    "finished_at",
)
_BEHIND = Statement(
    _ENTRY.where(
        entries.c.machine_id == bindparam("of_machine"),
        entries.c.position > bindparam("than"),
        entries.c.rolled_back == 0,
    ).order_by(entries.c.position)
)
_ALLOT_POSITION = Statement(
    update(machines)
    .where(machines.c.id == bindparam("of_machine"))
    .values(next_position=machines.c.next_position + 1)
    .returning(machines.c.next_position - 1, machines.c.line)
)
_OF_MACHINE = machines.c.id == entries.c.machine_id
_FINISH = Statement(
    update(entries)
    .values(
        ended_behind=select(machines.c.next_position - 1).where(_OF_MACHINE).scalar_subquery(),
        ended_line=select(machines.c.line).where(_OF_MACHINE).scalar_subquery(),
    )
    .where(
        entries.c.machine_id
        == select(machines.c.id)
        .where(
            machines.c.name == bindparam("machine"),
            machines.c.epoch == bindparam("of_epoch"),
            machines.c.session_id == bindparam("session"),
        )
        .scalar_subquery(),
        entries.c.seq == bindparam("of_seq"),
        entries.c.attempt == bindparam("of_attempt"),
        entries.c.started_at.is_not(None),
        entries.c.finished_at.is_(None),
    )
    .returning(entries.c.id, entries.c.machine_id),
    "finished_at",
    "value",
    "data",
    "error",
    "error_detail",
    "runtime_ms",
    "wake",
    "undone",
    "ended_by",
    "waited_for_save_ms",
    "exit_code",
    "exit_signal",
)


def accept(
    connection: Connection,
    account: str,
    machine: str,
    code: str,
    timeout_seconds: float,
    *,
    when_busy: Literal["refuse", "queue"],
    idempotency: Idempotency | None,
    stdin: Stdin | None = None,
) -> Accepted | Busy:
    """Write an instruction into the log, started if the machine is awake and free; see `SqlLedger.accept`."""
    row = _FOR_ACCEPT.first(connection, machine=machine, account=account)
    if row is None:
        raise MachineNotFound
    machine_id, account_id, ready, seq, position, line, parked_reason, unfinished, quarantined = row
    if idempotency is not None:
        earlier = repeats.earlier_work(connection, account_id, idempotency)
        if earlier is not None and earlier.entry_id is not None:
            entry = _one(connection, entries.c.id == earlier.entry_id)
            if entry.seq is None:
                raise AssertionError("an idempotency key belongs to an instruction")
            return Accepted(entry.seq, entry, repeated=True)
    if parked_reason is not None:
        raise MachineParked(f"The machine is parked: {parked_reason}")
    if quarantined:
        refuse_quarantined(connection, machine_id)
    if unfinished and when_busy == "refuse":
        busy_with = _RUNNING_SEQ.first(connection, of_machine=machine_id)
        return Busy(None if busy_with is None else busy_with[0])
    if unfinished >= UNFINISHED_LIMIT:
        raise TooManyUnfinished
    started = bool(ready) and not unfinished
    entry = _insert(
        connection,
        machine_id,
        Entry(
            id=0,
            kind=EntryKind.EXECUTE,
            seq=seq,
            position=position if started else None,
            attempt=1 if started else 0,
            timeout_seconds=timeout_seconds,
            code=storable(code) or "",
            stdin=stdin,
        ),
        line=line,
    )
    _COUNT_UP.run(connection, of_machine=machine_id, next_seq=seq + 1, next_position=position + started)
    if idempotency is not None:
        repeats.bind(connection, account_id, idempotency, machine_id=machine_id, entry_id=entry.id)
    return Accepted(seq, entry, repeated=False)


def accept_reseed(
    connection: Connection, machine_id: int, seed: bytes, *, position: int = 0, next_seq: int = 0, line: int = 0
) -> None:
    """Write a new machine's reseed: it takes the first position that its image has not seen, and waits for nobody.

    It counts as finished from the start: nothing answers it, and a machine nobody has used needs no waking.
    """
    _insert(
        connection,
        machine_id,
        Entry(id=0, kind=EntryKind.RESEED, seq=None, position=position, attempt=1, timeout_seconds=0, seed=seed),
        line=line,
        finished=True,
    )
    _COUNT_UP.run(connection, of_machine=machine_id, next_seq=next_seq, next_position=position + 1)


def accept_beside(
    connection: Connection, machine_id: int, entry: Entry, *, ready: bool, position: int, line: int, next_seq: int
) -> Entry:
    """Write what waits for no instruction into the log, started if the machine is awake."""
    if ready:
        entry = replace(entry, position=position, attempt=1)
    entry = _insert(connection, machine_id, entry, line=line, finished=ready and not entry.kind.has_seq)
    _COUNT_UP.run(connection, of_machine=machine_id, next_seq=next_seq, next_position=position + ready)
    return entry


def start_next(connection: Connection, machine_id: int, *, beside: bool = False) -> Entry | None:
    """The instruction that runs, or else the oldest accepted entry, started now; None if there is none.

    `beside`: an instruction runs; only what is none is started.
    """
    row = (_NEXT_BESIDE if beside else _NEXT).first(connection, of_machine=machine_id)
    if row is None:
        return None
    entry = _entry(row)
    if entry.position is not None:
        return entry
    position, line = allot_position(connection, machine_id)
    moment = now()
    finished_at = None if entry.kind.has_seq else moment  # nothing answers it
    _START.run(
        connection,
        entry=entry.id,
        position=position,
        line=line,
        started_at=moment,
        attempt=1,
        finished_at=finished_at,
    )
    return replace(entry, position=position, attempt=1)


def waits_beside(connection: Connection, machine_id: int) -> bool:
    """Whether anything but an instruction is accepted and not started."""
    return _NEXT_BESIDE.first(connection, of_machine=machine_id) is not None


def allot_position(connection: Connection, machine_id: int) -> tuple[int, int]:
    """The next position of a machine's log, and its line."""
    allotted = _ALLOT_POSITION.first(connection, of_machine=machine_id)
    if allotted is None:
        raise AssertionError("the machine of a hold exists")
    position, line = allotted
    return position, line


def behind(connection: Connection, machine_id: int, position: int) -> list[Entry]:
    """Started entries above a position, in order; those that a rollback has left behind are not among them."""
    return _with_ends(connection, machine_id, _BEHIND.run(connection, of_machine=machine_id, than=position).fetchall())


def by_seq(connection: Connection, machine_id: int, seqs: Collection[int]) -> list[Entry]:
    """Instructions and commands by seq, those that there are, in order of position."""
    query = _ENTRY.where(entries.c.machine_id == machine_id, entries.c.seq.in_(seqs)).order_by(entries.c.position)
    return _with_ends(connection, machine_id, connection.execute(query))


def any_given_up(connection: Connection, entry_ids: Collection[int]) -> bool:
    """Whether something of these entries is not kept any more, or was undone."""
    query = select(exists().where(entries.c.id.in_(entry_ids), or_(entries.c.expired == 1, entries.c.undone == 1)))
    return bool(connection.scalar(query))


def unfinished(connection: Connection, machine_id: int) -> list[Entry]:
    """What was started and has no end yet, in order of position."""
    query = _ENTRY.where(
        entries.c.machine_id == machine_id, entries.c.started_at.is_not(None), entries.c.finished_at.is_(None)
    )
    return [_entry(tuple(row)) for row in connection.execute(query.order_by(entries.c.position))]


def _with_ends(connection: Connection, machine_id: int, rows: Iterable[Row[Any] | tuple[Any, ...]]) -> list[Entry]:
    """Entries of rows; of commands that have ended, whether that belongs to what the machine has behind it."""
    found = [(_entry(tuple(row)), row[_ENDED_LINE]) for row in rows]
    if not any(entry.kind is EntryKind.COMMAND and entry.result is not None for entry, _ in found):
        return [entry for entry, _ in found]
    line = connection.scalar(select(machines.c.line).where(machines.c.id == machine_id))
    limits = {reach.line: reach.position for reach in descent(connection, machine_id, line or 0)}
    return [replace(entry, ended_here=running.is_ended(at, entry.ended_behind, limits)) for entry, at in found]


def count_attempt(
    connection: Connection, machine_id: int, seq: int, output_offset: int, *, counted: bool = False
) -> int:
    """Begin another attempt; its number. Raises ValueError if the instruction is not one that runs."""
    row = connection.execute(
        update(entries)
        .where(
            entries.c.machine_id == machine_id,
            entries.c.seq == seq,
            entries.c.started_at.is_not(None),
            entries.c.finished_at.is_(None),
        )
        .values(attempt=entries.c.attempt + 1)
        .returning(entries.c.id, entries.c.attempt)
    ).first()
    if row is None:
        raise ValueError(f"instruction {seq} is not one that was started and is unfinished")
    begin_attempt(connection, row.id, row.attempt, output_offset, counted=counted)
    return int(row.attempt)


def finish(
    connection: Connection,
    output_log: OutputLog,
    *,
    machine: str,
    epoch: int,
    session: str | None,
    seq: int,
    attempt: int,
    result: InstructionResult,
    undone: bool,
    ended_by: EndedBy | None,
    output: list[OutputRecord] | None,
    waited_for_save_ms: int,
) -> bool:
    """Commit a result and the output that is left; False, and no change, if no such attempt of a held machine runs."""
    columns = to_columns(result)
    row = _FINISH.first(
        connection,
        machine=machine,
        of_epoch=epoch,
        session=session,
        of_seq=seq,
        of_attempt=attempt,
        finished_at=now(),
        value=columns.value,
        data=columns.data,
        error=columns.error,
        error_detail=columns.error_detail,
        runtime_ms=columns.runtime_ms,
        wake=columns.wake,
        undone=int(undone),
        ended_by=ended_by,
        waited_for_save_ms=waited_for_save_ms,
        exit_code=columns.exit_code,
        exit_signal=columns.exit_signal,
    )
    if row is None:
        return False
    if output:
        sequence = Sequence(machine, machine_id=row[1], entry_id=row[0], attempt=attempt, background=False)
        output_log.append(connection, sequence, output, inline_limit_bytes=INLINE_LIMIT_BYTES)
    return True


def running_attempt(connection: Connection, machine_id: int, seq: int) -> tuple[int, int, bool] | None:
    """An instruction's entry id, its attempt and whether it is finished; None if there is no such instruction."""
    row = connection.execute(
        select(entries.c.id, entries.c.attempt, entries.c.finished_at).where(
            entries.c.machine_id == machine_id, entries.c.seq == seq
        )
    ).first()
    return None if row is None else (row.id, row.attempt, row.finished_at is not None)


def note_replay(connection: Connection, machine_id: int, seq: int) -> None:
    """Count one more execution of a finished instruction. Raises ValueError if it is not finished."""
    _change_finished(connection, machine_id, seq, replays=entries.c.replays + 1)


def undo(connection: Connection, machine_id: int, seq: int) -> None:
    """Mark a finished instruction as never to be replayed. Raises ValueError if it is not finished."""
    _change_finished(connection, machine_id, seq, undone=1)


def _change_finished(connection: Connection, machine_id: int, seq: int, **values: Any) -> None:
    finished = and_(entries.c.machine_id == machine_id, entries.c.seq == seq, entries.c.finished_at.is_not(None))
    if connection.execute(update(entries).where(finished).values(**values)).rowcount == 0:
        raise ValueError(f"instruction {seq} is not finished")


def _insert(connection: Connection, machine_id: int, entry: Entry, *, line: int, finished: bool = False) -> Entry:
    moment = now()
    cursor = _INSERT.run(
        connection,
        machine_id=machine_id,
        kind=entry.kind,
        seq=entry.seq,
        position=entry.position,
        line=None if entry.position is None else line,
        attempt=entry.attempt,
        timeout_seconds=entry.timeout_seconds,
        code=entry.code,
        seed=entry.seed or None,
        accepted_at=moment,
        started_at=None if entry.position is None else moment,
        finished_at=moment if finished else None,
        background=int(entry.background),
        target=entry.target,
        stdin=None if entry.stdin is None else entry.stdin.text,
        stdin_open=int(entry.stdin is not None and entry.stdin.open),
    )
    if cursor.lastrowid is None:
        raise AssertionError("an insert makes a row")
    return replace(entry, id=cursor.lastrowid)


def by_id(connection: Connection, entry_id: int) -> Entry:
    """The entry of an id that is known."""
    return _one(connection, entries.c.id == entry_id)


def _one(connection: Connection, condition: Any) -> Entry:
    return _entry(tuple(connection.execute(_ENTRY.where(condition)).one()))


def _entry(row: tuple[Any, ...]) -> Entry:
    entry_id, kind, seq, position, attempt, timeout_seconds, code, seed, finished_at, *rest = row
    *result, undone, ended_by, expired, body, background, target, ended_behind, _, stdin, stdin_open = rest
    has_result = finished_at is not None and seq is not None
    return Entry(
        id=entry_id,
        kind=EntryKind(kind),
        seq=seq,
        position=position,
        attempt=attempt,
        timeout_seconds=timeout_seconds,
        code=code,
        seed=seed or b"",
        result=from_columns(*result) if has_result else None,
        undone=bool(undone),
        ended_by=None if ended_by is None else EndedBy(ended_by),
        expired=bool(expired),
        body=body,
        background=bool(background),
        target=target,
        ended_behind=ended_behind,
        stdin=None if stdin is None else Stdin(stdin, bool(stdin_open)),
    )
