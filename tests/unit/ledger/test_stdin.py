"""What instructions read, in the ledger: with the code, or while it runs; a part of the points to go back to."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tests.support.ledger import ACCOUNT, accepted, awake, key, ran, result, saved

from torpor_api.errors import InstructionNotFound, InstructionNotRunning, StdinClosed, StdinFull
from torpor_api.ledger import Accepted, Point, SqlLedger
from torpor_api.ledger.database import FILE_NAME
from torpor_api.ledger.expiry import KEPT_ALWAYS, LogRetention
from torpor_api.ledger.inputs import FIRST_LIMIT_BYTES, LIMIT_BYTES
from torpor_worker.command import CommandInput, CommandSpec
from torpor_worker.ledger import Entry, EntryKind, Hold
from torpor_worker.snapshots import Stored
from torpor_worker.stdin import Stdin

OPEN = Stdin("", open=True)
PIECE = CommandInput(b"yes\n")


async def reads(ledger: SqlLedger, machine: str, stdin: Stdin = OPEN) -> Accepted:
    answer = await ledger.accept(ACCOUNT, machine, "input()", 15.0, when_busy="queue", stdin=stdin)
    assert isinstance(answer, Accepted)
    return answer


async def fed(ledger: SqlLedger, hold: Hold, seq: int, piece: CommandInput = PIECE) -> Entry:
    return (await ledger.accept_input(ACCOUNT, hold.machine, seq, piece)).entry


async def test_what_came_with_the_code_is_in_the_log_and_in_the_history(ledger: SqlLedger, hold: Hold) -> None:
    given = Stdin("one\n\0zwö\n")
    entry = (await reads(ledger, hold.machine, given)).entry
    assert entry.stdin == given
    assert (await ledger.behind(hold, 0))[0].stdin == given
    assert (await ledger.instruction(ACCOUNT, hold.machine, 0)).stdin == given.text
    await ledger.finish(hold, 0, 1, result("1"))
    assert (await accepted(ledger, hold.machine)).entry.stdin is None


async def test_input_for_what_runs_is_started_beside_it(ledger: SqlLedger, hold: Hold) -> None:
    instruction = (await reads(ledger, hold.machine)).entry
    entry = await fed(ledger, hold, 0)
    assert (entry.kind, entry.target, entry.seq) == (EntryKind.INPUT, 0, None)
    assert [instruction.position, entry.position] == [1, 2]
    assert [one.id for one in await ledger.behind(hold, 0)] == [instruction.id, entry.id]
    assert [one.seq for one in await ledger.unfinished(hold)] == [0]


async def test_input_finds_only_an_instruction_that_runs_and_reads(ledger: SqlLedger, hold: Hold) -> None:
    await accepted(ledger, hold.machine)
    with pytest.raises(StdinClosed):
        await fed(ledger, hold, 0)
    await reads(ledger, hold.machine)
    await ledger.finish(hold, 0, 1, result())
    await ledger.start_next(hold)
    await fed(ledger, hold, 1, CommandInput(b"", close=True))
    with pytest.raises(StdinClosed):
        await fed(ledger, hold, 1)
    await ledger.finish(hold, 1, 1, result())
    with pytest.raises(InstructionNotRunning):
        await fed(ledger, hold, 1)
    with pytest.raises(InstructionNotFound):
        await fed(ledger, hold, 2)
    await ledger.accept_command(ACCOUNT, hold.machine, CommandSpec("cat", stdin_open=True), 0.0, background=True)
    with pytest.raises(InstructionNotFound):
        await fed(ledger, hold, 2)


async def test_input_is_accepted_once_under_its_key(ledger: SqlLedger, hold: Hold) -> None:
    await reads(ledger, hold.machine)
    first = await ledger.accept_input(ACCOUNT, hold.machine, 0, PIECE, idempotency=key("k"))
    await ledger.finish(hold, 0, 1, result())
    again = await ledger.accept_input(ACCOUNT, hold.machine, 0, PIECE, idempotency=key("k"))
    assert (first.seq, first.repeated) == (0, False)
    assert (again.seq, again.repeated, again.entry.id) == (0, True, first.entry.id)


async def test_what_comes_before_an_instruction_begins_comes_with_its_code(ledger: SqlLedger, hold: Hold) -> None:
    await accepted(ledger, hold.machine)
    await reads(ledger, hold.machine, Stdin("one\n", open=True))
    for _ in range(2):
        again = await ledger.accept_input(ACCOUNT, hold.machine, 1, PIECE, idempotency=key("k"))
    assert (again.seq, again.repeated) == (1, True)
    with pytest.raises(StdinFull, match="has not begun"):
        await fed(ledger, hold, 1, CommandInput(b"x" * FIRST_LIMIT_BYTES))
    await fed(ledger, hold, 1, CommandInput(b"end", close=True))
    with pytest.raises(StdinClosed):
        await fed(ledger, hold, 1)
    await ledger.finish(hold, 0, 1, result())
    started = await ledger.start_next(hold)
    assert started is not None
    assert (started.position, started.stdin) == (2, Stdin("one\nyes\nend"))


async def test_input_has_a_limit(ledger: SqlLedger, hold: Hold) -> None:
    await reads(ledger, hold.machine)
    await fed(ledger, hold, 0, CommandInput(b"x" * LIMIT_BYTES))
    with pytest.raises(StdinFull):
        await fed(ledger, hold, 0)


async def test_going_back_to_an_instruction_goes_back_to_its_last_answer(ledger: SqlLedger, hold: Hold) -> None:
    await ledger.ready(hold)
    await saved(ledger, hold, None, 0)
    await reads(ledger, hold.machine, Stdin("first\n", open=True))
    for _ in range(2):
        await fed(ledger, hold, 0)
    await ledger.finish(hold, 0, 1, result())
    await ran(ledger, hold)
    place = await ledger.place_to_fork(ACCOUNT, hold.machine, Point(seq=0))
    assert place.position == 3
    assert [one.target for one in place.tail] == [None, 0, 0]
    name, source = "a" * 16, place.snapshot
    assert source is not None
    copy = Stored(f"machines/{name}/00000000-copy", "sha256 of the copy", 1, source.image_bytes, source.packs)
    await ledger.expect_copies({name: copy.manifest_key})
    await ledger.fork(ACCOUNT, hold.machine, place, {name: copy}, tags=None, answer={}, idempotency=key(name))
    fork = await awake(ledger, name)
    copied = await ledger.behind(fork, 0)
    assert [(one.kind, one.target) for one in copied[:3]] == [
        (EntryKind.EXECUTE, None),
        (EntryKind.INPUT, 0),
        (EntryKind.INPUT, 0),
    ]
    assert copied[0].stdin == Stdin("first\n", open=True)


async def test_a_manifest_has_what_the_running_instruction_was_given(ledger: SqlLedger, hold: Hold) -> None:
    await reads(ledger, hold.machine, Stdin("one\n", open=True))
    running = (await ledger.facts(hold, 0))["running"]
    assert running == {"code": "input()", "timeout_seconds": 15.0, "stdin": "one\n", "stdin_open": True}


async def test_what_was_read_goes_with_the_code_that_read_it(ledger: SqlLedger, hold: Hold, tmp_path: Path) -> None:
    await reads(ledger, hold.machine, Stdin("secret\n", open=True))
    await fed(ledger, hold, 0)
    await ledger.finish(hold, 0, 1, result())
    for _ in range(KEPT_ALWAYS):
        await ran(ledger, hold)
    head = None
    for generation in range(2):
        head = (await saved(ledger, hold, head, KEPT_ALWAYS + 2)).generation
        assert head == generation
    with closing(sqlite3.connect(tmp_path / FILE_NAME, timeout=60)) as database, database:
        database.execute("UPDATE entries SET finished_at = 0")
    await ledger.expire(LogRetention(log_days=1))
    with closing(sqlite3.connect(tmp_path / FILE_NAME, timeout=60)) as database:
        rows = database.execute("SELECT code, stdin FROM entries WHERE position IN (1, 2)").fetchall()
    assert rows == [("", None), ("", None)]
    assert (await ledger.instruction(ACCOUNT, hold.machine, 0)).stdin is None
