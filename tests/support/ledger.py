"""Short names for what tests write into a ledger."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from torpor_api.ledger import Accepted, Idempotency, MachineSettings, SqlLedger
from torpor_api.ledger.database import FILE_NAME, open_engine
from torpor_api.ledger.migrate import migrate
from torpor_api.ledger.sql_ledger import OUTPUT_LIMIT_BYTES
from torpor_snapshotter.key import pack_key
from torpor_worker.ledger import Entry, Hold, InstructionResult, OutputRecord, RunningCommand, Snapshot

ACCOUNT = "me"
MEMORY = Path("/dev/shm")


def memory_folder() -> TemporaryDirectory[str]:
    """A new folder in memory, where the host has that: thousands of flushes to a busy disk take minutes."""
    return TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None)


@cache
def _migrated_database() -> bytes:
    """A new database, made once: migrations take most of a short test's time."""
    with memory_folder() as folder:
        engine = open_engine("sqlite:", Path(folder))
        migrate(engine)
        engine.dispose()
        return (Path(folder) / FILE_NAME).read_bytes()


async def open_ledger(folder: Path, *, output_limit_bytes: int = OUTPUT_LIMIT_BYTES) -> SqlLedger:
    """A ledger in the folder with one account, and a new session that has taken over what was held."""
    if not (folder / FILE_NAME).exists():
        (folder / FILE_NAME).write_bytes(_migrated_database())
    ledger = await SqlLedger.open("sqlite:", folder, output_limit_bytes=output_limit_bytes)
    await ledger.create_account(ACCOUNT)
    await ledger.open_session("worker")
    return ledger


def result(value: str | None = None, *, error: str | None = None) -> InstructionResult:
    """A result in its value form, or in its error form."""
    detail = None if error is None else {"name": "Error", "message": error, "traceback": []}
    return InstructionResult(value, {}, error, detail, runtime_ms=1)


def stdout(text: str | bytes) -> OutputRecord:
    """A piece of standard output."""
    return OutputRecord("stdout", text.encode() if isinstance(text, str) else text)


def key(name: str, *, path: str = "/path", body: str = "body") -> Idempotency:
    """An idempotency key."""
    return Idempotency(name, "POST", path, body)


async def new_machine(ledger: SqlLedger) -> str:
    """A machine of the account."""
    name, _ = await ledger.create_machine(ACCOUNT, MachineSettings(memory_mb=1024, idle_seconds=60.0))
    return name


async def accepted(ledger: SqlLedger, machine: str, code: str = "pass", *, told: bool = True) -> Accepted:
    """An instruction in the log, behind those that are there."""
    answer = await ledger.accept(ACCOUNT, machine, code, 15.0, when_busy="queue", told=told)
    assert isinstance(answer, Accepted)
    return answer


async def started(ledger: SqlLedger, hold: Hold, code: str = "pass") -> Entry:
    """An instruction of a free machine, started."""
    await accepted(ledger, hold.machine, code)
    entry = await ledger.start_next(hold)
    assert entry is not None
    return entry


async def ran(ledger: SqlLedger, hold: Hold, value: str = "1") -> int:
    """The seq of an instruction that was run to its end."""
    entry = await started(ledger, hold)
    assert entry.seq is not None
    await ledger.finish(hold, entry.seq, entry.attempt, result(value))
    return entry.seq


def let_years_pass(folder: Path) -> None:
    """Every snapshot that there is in the folder's ledger is from long ago, and all from the same hour."""
    with closing(sqlite3.connect(folder / FILE_NAME, timeout=60)) as database, database:
        database.execute("UPDATE snapshots SET created_at = 0")


async def saved(
    ledger: SqlLedger,
    hold: Hold,
    head: int | None,
    position: int,
    *,
    running_seq: int | None = None,
    output_offset: int = 0,
    shared: tuple[str, ...] = (),
    commands: tuple[RunningCommand, ...] = (),
) -> Snapshot:
    """A committed snapshot on top of generation `head`, with a pack of its own beside those that are shared."""
    generation, manifest_key = await ledger.allot_save(hold)
    snapshot = Snapshot(
        generation=generation,
        line=hold.line,
        parent=head,
        position=position,
        running_seq=running_seq,
        running_used_seconds=0.0,
        output_offset=output_offset,
        manifest_key=manifest_key,
        manifest_sha256=f"sha256 of {generation}",
        stored_bytes=10,
        image_bytes=100,
        series="series",
        packs=tuple(sorted((pack_key(manifest_key), *shared))),
        commands=commands,
    )
    await ledger.commit_snapshot(hold, head, snapshot)
    return snapshot


async def awake(ledger: SqlLedger, machine: str) -> Hold:
    """A hold of a machine that is ready for instructions."""
    hold = await ledger.acquire(machine)
    assert hold is not None
    await ledger.ready(hold)
    return hold
