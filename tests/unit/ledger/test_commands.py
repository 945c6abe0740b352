"""Commands in the ledger: beside instructions, in snapshots, over rollbacks and forks."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command as alembic
from alembic.config import Config
from sqlalchemy import select, text
from tests.support.ledger import ACCOUNT, accepted, awake, key, new_machine, open_ledger, ran, result, saved, stdout

from torpor_api.errors import (
    CommandInputClosed,
    CommandInputFull,
    CommandNotFound,
    CommandNotRunning,
    MachineBusy,
    TooManyCommands,
)
from torpor_api.ledger import Accepted, Busy, Point, SqlLedger
from torpor_api.ledger.commands import UNFINISHED_LIMIT
from torpor_api.ledger.database import FILE_NAME, driver, open_engine
from torpor_api.ledger.migrate import SCRIPTS
from torpor_api.ledger.schema import entries
from torpor_worker.command import CommandInput, CommandSignal, CommandSpec
from torpor_worker.ledger import EndedBy, Entry, EntryKind, Exit, Hold, InstructionResult, RunningCommand
from torpor_worker.snapshots import Stored

ENDED = InstructionResult(None, {}, None, None, 1, exit=Exit(0, None))


async def a_command(ledger: SqlLedger, hold: Hold, *, background: bool = True, **spec: object) -> Entry:
    """A command of a machine that is awake."""
    made = CommandSpec("sleep 1000", **spec)  # type: ignore[arg-type]
    answer = await ledger.accept_command(ACCOUNT, hold.machine, made, 0.0, background=background)
    assert answer.entry.position is not None
    return answer.entry


def inside(entry: Entry, **changes: object) -> RunningCommand:
    """The command as it runs in a snapshot."""
    assert entry.seq is not None
    made = RunningCommand(entry.seq, 1, 0.0, 0, 0, entry.background)
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


async def test_commands_start_beside_an_instruction_and_one_instruction_runs_at_a_time(
    ledger: SqlLedger, hold: Hold
) -> None:
    await ledger.ready(hold)
    instruction = await accepted(ledger, hold.machine)
    command = await a_command(ledger, hold)
    assert [instruction.entry.position, command.position] == [1, 2]
    assert isinstance(await ledger.accept(ACCOUNT, hold.machine, "1", 15.0, when_busy="refuse"), Busy)
    queued = await accepted(ledger, hold.machine)
    assert queued.entry.position is None
    assert await ledger.start_next(hold, beside=True) is None
    assert await ledger.start_next(hold) == instruction.entry


async def test_a_command_that_waits_is_started_beside_what_runs(ledger: SqlLedger, machine: str) -> None:
    hold = await ledger.acquire(machine)
    assert hold is not None
    entry = (await accepted(ledger, hold.machine)).entry
    assert (await ledger.start_next(hold)) == dataclasses.replace(entry, position=1, attempt=1)
    spec = CommandSpec("true")
    await ledger.accept_command(ACCOUNT, hold.machine, spec, 0.0, background=False)
    started = await ledger.start_next(hold, beside=True)
    assert started is not None
    assert (started.kind, started.position, CommandSpec.from_text(started.code)) == (EntryKind.COMMAND, 2, spec)
    assert [one.seq for one in await ledger.unfinished(hold)] == [0, 1]


async def test_how_it_ended_is_kept(ledger: SqlLedger, hold: Hold) -> None:
    await ledger.ready(hold)
    command = await a_command(ledger, hold)
    await ran(ledger, hold)
    failed = InstructionResult(None, {}, "CommandFailed: killed", {"name": "CommandFailed"}, 7, exit=Exit(None, 9))
    assert command.seq is not None
    await ledger.finish(hold, command.seq, 1, failed, ended_by=EndedBy.SIGNAL, output=[stdout("said")])
    (kept,) = await ledger.entries(hold, [command.seq])
    assert (kept.result, kept.ended_by, kept.ended_behind, kept.ended_here) == (failed, EndedBy.SIGNAL, 2, True)
    row = await ledger.instruction(ACCOUNT, hold.machine, command.seq)
    assert (row.kind, row.background, row.result) == (EntryKind.COMMAND, True, failed)


async def test_so_many_run_at_once_and_no_more(ledger: SqlLedger, hold: Hold) -> None:
    await ledger.ready(hold)
    commands = [await a_command(ledger, hold) for _ in range(UNFINISHED_LIMIT)]
    with pytest.raises(TooManyCommands):
        await a_command(ledger, hold)
    assert commands[0].seq is not None
    await ledger.finish(hold, commands[0].seq, 1, ENDED)
    await a_command(ledger, hold)
    listed, cursor = await ledger.commands(ACCOUNT, hold.machine, limit=10)
    assert ([row.seq for row in listed[-2:]], cursor) == ([1, 0], None)


async def test_input_and_signals_reach_what_runs_and_has_its_input_open(ledger: SqlLedger, hold: Hold) -> None:
    await ledger.ready(hold)
    fed = await a_command(ledger, hold, stdin_open=True)
    unfed = await a_command(ledger, hold)
    instruction = await ran(ledger, hold)
    assert fed.seq is not None
    assert unfed.seq is not None
    for piece in (CommandInput(b"a"), CommandInput(b"b", close=True)):
        accepted_input = await ledger.accept_command_input(ACCOUNT, hold.machine, fed.seq, piece)
        assert accepted_input.seq == fed.seq
    with pytest.raises(CommandInputClosed):
        await ledger.accept_command_input(ACCOUNT, hold.machine, fed.seq, CommandInput(b"c"))
    with pytest.raises(CommandInputClosed):
        await ledger.accept_command_input(ACCOUNT, hold.machine, unfed.seq, CommandInput(b"c"))
    with pytest.raises(CommandNotFound):
        await ledger.accept_command_signal(ACCOUNT, hold.machine, instruction, CommandSignal(15))
    await ledger.accept_command_signal(ACCOUNT, hold.machine, unfed.seq, CommandSignal(15))
    await ledger.finish(hold, unfed.seq, 1, ENDED)
    with pytest.raises(CommandNotRunning):
        await ledger.accept_command_signal(ACCOUNT, hold.machine, unfed.seq, CommandSignal(15))
    told = [entry for entry in await ledger.behind(hold, 0) if entry.target is not None]
    assert [(entry.kind, entry.target) for entry in told] == [
        (EntryKind.COMMAND_INPUT, fed.seq),
        (EntryKind.COMMAND_INPUT, fed.seq),
        (EntryKind.COMMAND_SIGNAL, unfed.seq),
    ]
    assert await ledger.waiting() == []


async def test_a_command_is_given_so_much_input_and_no_more(ledger: SqlLedger, hold: Hold) -> None:
    await ledger.ready(hold)
    command = await a_command(ledger, hold, stdin_open=True)
    assert command.seq is not None
    for _ in range(15):
        await ledger.accept_command_input(ACCOUNT, hold.machine, command.seq, CommandInput(b"x" * (1 << 20)))
    with pytest.raises(CommandInputFull):
        await ledger.accept_command_input(ACCOUNT, hold.machine, command.seq, CommandInput(b"x" * (1 << 20)))


async def test_a_repeat_joins_the_same_work(ledger: SqlLedger, hold: Hold) -> None:
    await ledger.ready(hold)

    async def start() -> Accepted:
        return await ledger.accept_command(
            ACCOUNT, hold.machine, CommandSpec("true", stdin_open=True), 0.0, background=True, idempotency=key("once")
        )

    async def tell(seq: int) -> Accepted:
        piece = CommandInput(b"a")
        return await ledger.accept_command_input(ACCOUNT, hold.machine, seq, piece, idempotency=key("input"))

    first = await start()
    again = await start()
    assert (again.seq, again.repeated, first.repeated) == (first.seq, True, False)
    assert [(await tell(first.seq)).repeated for _ in range(2)] == [False, True]
    assert len([entry for entry in await ledger.behind(hold, 0) if entry.target is not None]) == 1


async def test_a_machine_sleeps_with_a_command_in_the_background_that_runs_in_its_head(
    ledger: SqlLedger, hold: Hold
) -> None:
    await ledger.ready(hold)
    command = await a_command(ledger, hold)
    without = await saved(ledger, hold, None, 1)
    assert not await ledger.release(hold, without.generation)
    head = await saved(ledger, hold, without.generation, 1, commands=(inside(command),))
    assert head.quiescent
    assert await ledger.release(hold, head.generation)
    assert await ledger.waiting() == []
    assert not (await ledger.machine(ACCOUNT, hold.machine)).has_pending_instruction
    again = await ledger.acquire(hold.machine)
    assert again is not None
    assert again.head is not None
    assert again.head.commands == head.commands


async def test_a_machine_does_not_sleep_as_a_head_that_lacks_an_end(ledger: SqlLedger, hold: Hold) -> None:
    await ledger.ready(hold)
    command = await a_command(ledger, hold)
    head = await saved(ledger, hold, None, 1, commands=(inside(command),))
    assert command.seq is not None
    await ledger.finish(hold, command.seq, 1, ENDED)
    assert not await ledger.release(hold, head.generation)
    assert not await ledger.release(hold, head.generation, draining=True)


async def test_one_that_somebody_waits_for_is_let_go_by_a_stop_only_and_placed_again(
    ledger: SqlLedger, hold: Hold
) -> None:
    await ledger.ready(hold)
    command = await a_command(ledger, hold, background=False)
    head = await saved(ledger, hold, None, 1, commands=(inside(command),))
    assert not head.quiescent
    assert not await ledger.release(hold, head.generation)
    assert await ledger.release(hold, head.generation, draining=True)
    assert await ledger.waiting() == [hold.machine]
    with pytest.raises(MachineBusy):
        await ledger.roll_back(ACCOUNT, hold.machine, Point(generation=head.generation), answer=lambda _: {})


async def test_an_attempt_inherits_what_was_given_stored_or_not(tmp_path: Path) -> None:
    ledger = await open_ledger(tmp_path, output_limit_bytes=10)
    hold = await awake(ledger, await new_machine(ledger))
    command = await a_command(ledger, hold)
    assert command.seq is not None
    await ledger.append_output(hold, command.seq, 1, [stdout("0123456789abc")], background=False, skipped_bytes=7)
    assert await ledger.output_given(hold, command.seq, 1) == 20
    for offset, given in ((15, 15), (6, 6)):
        attempt = await ledger.count_attempt(hold, command.seq, offset, counted=True)
        assert await ledger.output_given(hold, command.seq, attempt) == given
    page = await ledger.output(hold.machine, command.seq)
    assert b"".join(record.data for _, record in page.records) == b"012345"
    await ledger.close()


async def test_a_rollback_to_before_its_end_lets_it_run_again_and_to_before_its_beginning_ends_it(
    ledger: SqlLedger, hold: Hold
) -> None:
    await ledger.ready(hold)
    first = await saved(ledger, hold, None, 0)
    command = await a_command(ledger, hold)
    assert command.seq is not None
    second = await saved(ledger, hold, first.generation, 1, commands=(inside(command),))
    await ledger.finish(hold, command.seq, 1, ENDED)
    third = await saved(ledger, hold, second.generation, 1)
    assert await ledger.release(hold, third.generation)

    await ledger.roll_back(ACCOUNT, hold.machine, Point(generation=second.generation), answer=lambda _: {})
    back = await ledger.acquire(hold.machine)
    assert back is not None
    (entry,) = await ledger.entries(back, [command.seq])
    assert (entry.result, entry.ended_here) == (ENDED, False)
    assert back.head is not None
    await ledger.ready(back)
    again = await saved(ledger, back, second.generation, 1, commands=(inside(command, again=True),))
    assert await ledger.release(back, again.generation)

    other = await awake(ledger, hold.machine)
    later = await a_command(ledger, other)
    assert later.seq is not None
    assert later.position is not None
    with_it = await saved(ledger, other, again.generation, later.position, commands=(inside(later),))
    assert await ledger.release(other, with_it.generation)
    await ledger.roll_back(ACCOUNT, hold.machine, Point(generation=first.generation), answer=lambda _: {})
    row = await ledger.instruction(ACCOUNT, hold.machine, later.seq)
    assert row.rolled_back
    assert row.result is not None
    assert "rolled back" in str(row.result.error)


async def test_a_fork_has_those_that_run_in_its_beginning_and_counts_on_behind_them(
    ledger: SqlLedger, hold: Hold
) -> None:
    await ledger.ready(hold)
    await ran(ledger, hold)
    command = await a_command(ledger, hold)
    assert command.seq is not None
    assert command.position is not None
    head = await saved(ledger, hold, None, command.position, commands=(inside(command, output_offset=5, said_bytes=5),))
    assert await ledger.release(hold, head.generation)
    place = await ledger.place_to_fork(ACCOUNT, hold.machine, None)
    await ledger.expect_copies({"F" * 16: "machines/F/0"})
    stored = Stored("machines/F/0", "sha256", 1, 1, head.packs)
    await ledger.fork(ACCOUNT, hold.machine, place, {"F" * 16: stored}, tags=None, answer={})

    fork = await awake(ledger, "F" * 16)
    (entry,) = await ledger.entries(fork, [command.seq])
    assert (entry.kind, entry.result, entry.code, entry.background) == (
        EntryKind.COMMAND,
        None,
        command.code,
        True,
    )
    assert fork.head is not None
    assert fork.head.commands == (inside(command, said_bytes=5),)
    assert (await accepted(ledger, "F" * 16)).seq == command.seq + 1


async def test_a_parked_machine_answers_its_commands_and_they_may_run_again(ledger: SqlLedger, hold: Hold) -> None:
    await ledger.ready(hold)
    command = await a_command(ledger, hold)
    assert command.seq is not None
    await saved(ledger, hold, None, 1, commands=(inside(command),))
    await ledger.park(hold, "it died", None)
    row = await ledger.instruction(ACCOUNT, hold.machine, command.seq)
    assert row.result is not None
    assert "MachineParked" in str(row.result.error)
    await ledger.retry(ACCOUNT, hold.machine)
    back = await ledger.acquire(hold.machine)
    assert back is not None
    (entry,) = await ledger.entries(back, [command.seq])
    assert not entry.ended_here
    assert not entry.undone


async def test_a_manifest_says_what_runs_in_its_snapshot(ledger: SqlLedger, hold: Hold) -> None:
    await ledger.ready(hold)
    command = await a_command(ledger, hold)
    assert command.seq is not None
    facts = await ledger.facts(hold, None, [command.seq])
    assert facts["commands"] == {command.seq: {"code": command.code, "timeout_seconds": 0.0, "position": 1}}
    json.dumps(facts)


async def test_a_database_of_before_takes_commands_and_keeps_its_entries(tmp_path: Path) -> None:
    engine = open_engine("sqlite:", tmp_path)
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        with connection.begin():
            driver(connection).execute("BEGIN IMMEDIATE")
            alembic.upgrade(config, "0021")
    with engine.connect() as connection:
        connection.execute(text("INSERT INTO accounts (name, created_at) VALUES ('me', 1)"))
        connection.execute(
            text("INSERT INTO machines (name, account_id, created_at, memory_bytes, next_seq) VALUES ('m', 1, 1, 1, 1)")
        )
        connection.execute(
            text(
                "INSERT INTO entries (machine_id, kind, seq, timeout_seconds, code, accepted_at) "
                "VALUES (1, 'execute', 0, 1, '1', 1)"
            )
        )
        connection.execute(
            text(
                "INSERT INTO output_pieces (machine_id, entry_id, attempt, start, size_bytes, inline) "
                "VALUES (1, 1, 1, 0, 1, x'00')"
            )
        )
    engine.dispose()
    ledger = await SqlLedger.open("sqlite:", tmp_path)
    command = await ledger.accept_command("me", "m", CommandSpec("true"), 0.0, background=True)
    page = await ledger.instructions("me", "m")
    assert command.seq == 1
    assert [(row.seq, row.code) for row in page[0]] == [(1, command.entry.code), (0, "1")]
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as database:
        assert database.execute("SELECT count(*) FROM output_pieces").fetchone() == (1,)
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    await ledger.close()


async def test_the_database_itself_refuses_two_instructions_that_run_and_takes_any_number_of_commands(
    ledger: SqlLedger, hold: Hold
) -> None:
    await ledger.ready(hold)
    await accepted(ledger, hold.machine)
    for _ in range(3):
        await a_command(ledger, hold)
    running = select(entries.c.kind).where(entries.c.started_at.is_not(None), entries.c.finished_at.is_(None))
    kinds = await ledger._readers.run(lambda connection: list(connection.scalars(running)))
    assert sorted(kinds) == ["command", "command", "command", "execute"]
    assert result("1").exit is None


async def test_what_is_for_a_command_that_waits_is_started_behind_it(ledger: SqlLedger, machine: str) -> None:
    hold = await ledger.acquire(machine)
    assert hold is not None
    spec = CommandSpec("cat", stdin_open=True)
    command = (await ledger.accept_command(ACCOUNT, machine, spec, 0.0, background=True)).entry
    await ledger.ready(hold)
    pieces = [
        (await ledger.accept_command_input(ACCOUNT, machine, 0, CommandInput(data))).entry for data in (b"1", b"2")
    ]
    assert [entry.position for entry in (command, *pieces)] == [None, None, None]

    started = [await ledger.start_next(hold) for _ in range(3)]
    assert [entry and entry.id for entry in started] == [entry.id for entry in (command, *pieces)]
    assert (await ledger.accept_command_input(ACCOUNT, machine, 0, CommandInput(b"3"))).entry.position == 4
