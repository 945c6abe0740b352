"""Commands beside cells: started, ended, saved in the middle, slept with, recovered and taken over."""

import dataclasses
import signal
from pathlib import Path

import pytest
from tests.support.house import House, until

from torpor_worker.command import CommandInput, CommandSignal, CommandSpec
from torpor_worker.commands import SAID_KEPT
from torpor_worker.ledger import Durability, EndedBy, Entry, Exit, Hold, InstructionResult, Recovery
from torpor_worker.memory_ledger import MemoryLedger
from torpor_worker.sandbox import CommandOutput

COUNT = "count 60 0.005"


def start(house: House, command: str, *, background: bool = False, timeout_seconds: float = 0.0, **spec: object) -> int:
    """Accept and deliver a command as the API does; its seq."""
    made = CommandSpec(command, **spec)  # type: ignore[arg-type]
    entry = house.ledger.accept_command("m", made, background=background, timeout_seconds=timeout_seconds)
    house.worker.deliver("m", entry)
    assert entry.seq is not None
    return entry.seq


async def run(house: House, command: str, **asked: object) -> InstructionResult:
    return await house.result(start(house, command, **asked))  # type: ignore[arg-type]


def feed(house: House, seq: int, data: bytes, *, close: bool = False) -> None:
    house.worker.deliver("m", house.ledger.accept_input("m", seq, CommandInput(data, close)))


def send(house: House, seq: int, number: int) -> None:
    house.worker.deliver("m", house.ledger.accept_signal("m", seq, CommandSignal(number)))


def numbers(end: int) -> str:
    return "".join(f"{number}\n" for number in range(end))


async def said(house: House, seq: int, text: str) -> None:
    await until(lambda: text in house.output(seq))


async def test_a_command_is_answered_with_what_it_said_and_how_it_ended(house: House) -> None:
    seq = start(house, "echo out; err err; exit 3")
    result = await house.result(seq)

    assert result.exit == Exit(3, None)
    assert result.error == "CommandFailed: exit status 3"
    assert house.output(seq) == "out\nerr\n"
    assert (await run(house, "echo fine")).error is None


async def test_a_command_runs_beside_an_instruction_and_a_queued_one_waits_for_it(house: House) -> None:
    first = house.send("hang()")
    await until(lambda: house.entry(first).position is not None)
    second = house.send("a = 1")
    assert (await run(house, "echo beside")).error is None
    assert house.entry(first).result is None
    assert house.entry(second).position is None
    await house.worker.interrupt("m", first)
    assert (await house.result(second)).error is None


async def test_what_was_started_later_and_heard_of_first_is_sent_in_its_order(house: House) -> None:
    await house.run("a = 1")
    await until(lambda: house.machine().ready)
    entries = [house.ledger.accept_command("m", CommandSpec(f"echo {number}")) for number in range(3)]
    for entry in reversed(entries):
        house.worker.deliver("m", entry)
    for entry in entries:
        assert entry.seq is not None
        await house.result(entry.seq)

    assert house.host.commands == [entry.seq for entry in entries]


class StartsOneBetween(MemoryLedger):
    """Accepts and starts a command at once in the moment before an instruction that waits is started."""

    between: Entry | None = None

    async def start_next(self, hold: Hold, *, beside: bool = False) -> Entry | None:
        if self.between is None and any(entry.position is None for entry in self.machines["m"].unfinished()):
            self.machines["m"].ready = True
            self.between = self.accept_command("m", CommandSpec("echo between"))
        return await super().start_next(hold, beside=beside)


async def test_what_is_started_as_it_is_accepted_is_sent_before_what_waited_and_got_a_later_position(
    tmp_path: Path,
) -> None:
    house = House(tmp_path, ledger := StartsOneBetween())
    ledger.create("m", idle_seconds=3600)
    await house.start()
    waited = house.send("a = 1")
    await house.result(waited)
    assert ledger.between is not None
    assert ledger.between.seq is not None
    house.worker.deliver("m", ledger.between)
    await house.result(ledger.between.seq)

    assert house.host.commands == [ledger.between.seq]
    received = [ledger.between, house.entry(waited)]
    assert [entry.position for entry in received] == [1, 2]
    await house.close()


async def test_a_command_that_takes_too_long_is_ended_and_never_run_again(house: House) -> None:
    seq = start(house, "stubborn; hang", timeout_seconds=0.02)
    result = await house.result(seq)

    assert result.error == "Timed out after 0.02 s"
    assert result.exit == Exit(None, signal.SIGKILL)
    assert house.entry(seq).ended_by is EndedBy.TIMEOUT
    await house.crash()
    await house.start()
    await house.run("a = 1")
    assert house.host.commands.count(seq) == 1


async def test_input_arrives_in_its_order_and_ends(house: House) -> None:
    seq = start(house, "cat; echo end", stdin=b"a", stdin_open=True, background=True)
    feed(house, seq, b"b")
    feed(house, seq, b"c\n", close=True)
    await house.result(seq)

    assert house.output(seq) == "abc\nend\n"


async def test_what_it_left_behind_says_more_after_its_end(house: House) -> None:
    seq = start(house, "leave later; echo now")
    await house.result(seq)
    await until(lambda: house.machine().background.get(seq))

    assert house.output(seq) == "now\n"
    assert [record.data for record in house.machine().background[seq]] == [b"later\n"]


async def test_of_commands_that_have_ended_little_is_remembered_and_what_they_say_later_is_kept(house: House) -> None:
    first = start(house, "echo first")
    await house.result(first)
    for _ in range(SAID_KEPT + 20):
        await run(house, "echo x")
    process = house.worker._machines["m"]._process
    assert process is not None
    (sandbox,) = house.host.sandboxes.values()
    for seq in range(10_000, 10_500):  # there are none
        sandbox._say(CommandOutput(seq, "stdout", b"made up", 0))
    sandbox._say(CommandOutput(first, "stdout", b"later", 6))
    await until(lambda: house.machine().background.get(first))

    assert len(process.commands._said) <= SAID_KEPT + 1
    assert [record.data for record in house.machine().background[first]] == [b"later"]


async def test_output_over_the_limit_is_only_counted(house: House) -> None:
    house.set(output_limit_bytes=10)
    await house.restart()
    seq = start(house, "echo 0123456789abcdef")
    await house.result(seq)

    assert house.output(seq).startswith("0123456789")
    assert len(house.output(seq)) == 17


async def test_a_machine_stays_awake_for_a_command_that_somebody_waits_for_and_not_for_another(house: House) -> None:
    house.machine().idle_seconds = 0.02
    awaited = start(house, COUNT)
    await house.result(awaited)
    assert "slept" not in house.events()

    background = start(house, "hang", background=True)
    await until(lambda: "slept" in house.events())
    assert house.entry(background).result is None
    assert await house.ledger.waiting() == []


async def test_a_command_in_the_background_goes_on_with_the_next_wake_and_says_each_thing_once(house: House) -> None:
    seq = start(house, COUNT, background=True)
    for turn in (5, 25):
        await said(house, seq, f"{turn}\n")
        assert await house.worker.sleep("m")
        await house.worker.wake("m")
    result = await house.result(seq)

    assert result.error is None
    assert house.output(seq) == numbers(60)
    assert house.entry(seq).attempt == 1
    assert house.host.commands == [seq]
    assert house.machine().notices == {}


async def test_input_and_signals_wake_the_machine_for_a_command_that_sleeps_with_it(house: House) -> None:
    seq = start(house, "cat; hang", background=True, stdin_open=True)
    await until(lambda: house.host.commands == [seq])
    assert await house.worker.sleep("m")
    feed(house, seq, b"hello\n", close=True)
    await said(house, seq, "hello\n")
    assert await house.worker.sleep("m")
    send(house, seq, signal.SIGTERM)
    result = await house.result(seq)

    assert result.exit == Exit(None, signal.SIGTERM)
    assert house.entry(seq).ended_by is EndedBy.SIGNAL


@pytest.mark.parametrize("background", [False, True])
async def test_a_stop_saves_commands_in_the_middle_and_they_go_on(house: House, background: bool) -> None:
    seq = start(house, COUNT, background=background)
    await said(house, seq, "5\n")
    await house.restart()
    if background:
        await house.worker.wake("m")  # nobody waits for it, so nobody wakes its machine
    await house.result(seq)

    assert house.output(seq) == numbers(60)
    assert house.host.commands == [seq]
    assert "ran_again" not in house.machine().notices


async def test_a_stop_in_the_middle_of_a_cell_and_a_command_saves_both(house: House) -> None:
    cell = house.send("count(60, 0.005)")
    command = start(house, COUNT)
    await said(house, command, "5\n")
    await said(house, cell, "5\n")
    await house.restart()
    assert (await house.result(cell)).value == "60"
    await house.result(command)

    assert house.output(cell) == house.output(command) == numbers(60)


async def test_a_command_goes_on_from_a_save_in_the_middle_of_a_cell_as_another_attempt(house: House) -> None:
    house.set(save_interval_seconds=0.03)
    await house.restart()
    cell = house.send("count(200, 0.005)")
    command = start(house, "count 200 0.005")
    await until(lambda: house.machine().head is not None and house.machine().head.commands)
    head = house.machine().head
    assert head is not None
    assert (head.running_seq, [each.seq for each in head.commands]) == (cell, [command])
    assert not head.quiescent
    await house.crash()
    await house.start()
    assert (await house.result(cell)).value == "200"
    await house.result(command)

    assert house.output(cell) == house.output(command) == numbers(200)
    assert house.machine().notices["ran_again"][1] == [cell, command]


async def test_what_no_save_has_is_executed_again_beside_what_it_ran_beside(house: House) -> None:
    await house.run("a = 1")
    seq = start(house, "set b 5; echo made")
    await house.result(seq)
    assert await house.value("b") == "'5'"
    await house.crash()
    await house.start()

    assert await house.value("a, b") == "(1, '5')"
    assert house.machine().notices["replayed"][1] == [0, seq, 2]
    assert house.output(seq) == "made\n"


async def test_an_entry_is_replayed_after_the_end_of_a_command_in_the_background_that_it_followed(
    house: House,
) -> None:
    seq = start(house, "count 10 0.01; set b 5", background=True)
    await house.run("a = 1")
    await house.result(seq)
    assert await house.value("b") == "'5'"
    await house.crash()
    await house.start()

    assert await house.value("b") == "'5'"
    assert "differed" not in house.machine().notices


async def test_a_command_without_an_end_is_started_again_in_its_place(house: House) -> None:
    seq = start(house, "set b 5; echo up; hang", background=True)
    await said(house, seq, "up\n")
    assert await house.value("b") == "'5'"
    await house.crash()
    await house.start()

    assert await house.value("b") == "'5'"
    assert house.machine().notices["ran_again"][1] == [seq]
    assert "differed" not in house.machine().notices
    await said(house, seq, "up\n")
    assert house.entry(seq).attempt == 2


async def test_input_and_signals_are_replayed_too(house: House) -> None:
    seq = start(house, "cat; set b 5; hang", background=True, stdin_open=True)
    feed(house, seq, b"x", close=True)
    await said(house, seq, "x")
    await house.run("1")
    await house.crash()
    await house.start()
    await house.run("2")
    await said(house, seq, "x")
    send(house, seq, signal.SIGTERM)

    assert (await house.result(seq)).exit == Exit(None, signal.SIGTERM)


async def test_a_replay_does_not_wait_for_an_end_that_came_of_what_is_sent_behind_a_cell(house: House) -> None:
    seq = start(house, "cat; set b 5", stdin_open=True)
    cell = house.send("count(200, 0.005)")
    await said(house, cell, "1\n")
    feed(house, seq, b"x", close=True)
    await house.result(seq)
    await house.crash()
    await house.start()

    assert (await house.result(cell)).value == "200"
    assert await house.value("b") == "'5'"
    notices = house.machine().notices
    assert notices["replayed"][1] == [seq]
    assert "differed" not in notices


async def test_one_that_was_ended_by_a_signal_is_not_run_again_and_that_is_said(house: House) -> None:
    seq = start(house, "echo up; hang", background=True)
    await said(house, seq, "up\n")
    send(house, seq, signal.SIGKILL)
    await house.result(seq)
    await house.crash()
    await house.start()
    await house.run("1")

    assert house.machine().notices["effects_lost"][1] == [seq]
    assert house.host.commands == [seq]


async def test_a_result_that_differs_is_told_and_the_first_answer_stands(house: House) -> None:
    seq = start(house, "exit 1")
    await house.result(seq)
    entry = house.entry(seq)
    house.machine().replace(entry, code=CommandSpec("exit 2").to_text())
    await house.crash()
    await house.start()
    await house.run("1")

    assert house.machine().notices["differed"][1] == [seq]
    assert house.entry(seq).result == entry.result


async def test_a_death_of_the_process_ends_what_somebody_waits_for_and_not_what_is_in_the_background(
    house: House,
) -> None:
    background = start(house, COUNT, background=True)
    awaited = start(house, "hang")
    await said(house, background, "5\n")
    await house.worker.sync("m")
    cell = house.send("die()")
    assert "ProcessDied" in str((await house.result(cell)).error)
    assert "ProcessDied" in str((await house.result(awaited)).error)
    assert house.entry(awaited).undone
    await house.result(background)

    assert house.output(background) == numbers(60)
    assert house.machine().parked is None


async def test_a_save_waits_for_no_command(house: House) -> None:
    start(house, "hang")
    await until(lambda: house.machine().ready)
    await house.worker.sync("m")
    head = house.machine().head

    assert head is not None
    assert [each.background for each in head.commands] == [False]


async def test_a_command_whose_second_attempt_ends_in_death_is_given_up(house: House) -> None:
    seq = start(house, "echo up; hang", background=True)
    for attempt in (1, 2):
        await until(lambda attempt=attempt: house.entry(seq).attempt == attempt)
        await said(house, seq, "up\n")
        await house.crash()
        await house.start()
    result = await house.result(seq)

    assert "not finished: its process ended in each of 2 attempts" in str(result.error)
    assert await house.value("1 + 1") == "2"


async def test_one_in_the_background_is_not_blamed_for_what_cells_do(house: House) -> None:
    seq = start(house, "echo up; hang", background=True)
    await said(house, seq, "up\n")
    for _ in range(3):
        await house.run("die()")
        assert await house.value("1 + 1") == "2"
    await said(house, seq, "up\n")

    assert house.entry(seq).result is None


async def test_a_machine_set_to_rollback_runs_no_command_twice(house: House) -> None:
    house.machine().recovery = Recovery.ROLLBACK
    await house.run("a = 1")
    await house.worker.sync("m")
    seq = start(house, "hang", background=True)
    await until(lambda: house.host.commands == [seq])
    await house.crash()
    await house.start()

    assert "it is not run again" in str((await house.result(seq)).error)
    assert house.host.commands == [seq]
    assert house.machine().notices["effects_lost"][1] == [seq]


async def test_with_durability_of_instructions_an_end_is_answered_when_it_is_saved(house: House) -> None:
    house.machine().durability = Durability.INSTRUCTION
    house.worker.change_settings("m")
    cell = house.send("count(40, 0.005)")
    await said(house, cell, "5\n")
    seq = start(house, "set b 5")
    await house.result(seq)
    head = house.machine().head
    assert head is not None
    assert head.running_seq == cell
    await house.crash()
    await house.start()

    assert (await house.result(cell)).value == "40"
    assert house.output(cell) == numbers(40)
    assert house.host.commands == [seq]


async def test_what_a_command_said_is_in_the_log_once_when_its_save_is_not_wanted_any_more(house: House) -> None:
    house.machine().durability = Durability.INSTRUCTION
    house.worker.change_settings("m")
    house.snapshotter.failures = 1 << 30
    seq = start(house, "echo said")
    await until(lambda: "save_failed" in house.machine().notices)
    assert house.output(seq) == "said\n"
    house.machine().durability = Durability.INTERVAL
    house.worker.change_settings("m")
    await house.result(seq)
    assert house.output(seq) == "said\n"


async def test_a_process_that_outlives_its_worker_keeps_its_commands(house: House) -> None:
    awaited = start(house, COUNT)
    background = start(house, COUNT, background=True)
    await said(house, background, "5\n")
    await house.die()
    await house.start()
    for seq in (awaited, background):
        await house.result(seq)
        assert house.output(seq) == numbers(60)
        assert house.entry(seq).attempt == 1

    assert house.events().count("adopted") == 1
    assert house.host.commands == [awaited, background]
    assert house.machine().notices == {}


async def test_a_process_that_outlives_its_worker_is_sent_what_was_started_and_not_sent(house: House) -> None:
    await house.run("a = 1")
    await until(lambda: house.machine().ready)
    seqs = [house.ledger.accept_command("m", CommandSpec(f"echo {number}")).seq for number in range(2)]
    cell = house.ledger.accept("m", "a + 5").seq
    await house.die()
    await house.start()

    assert cell is not None
    assert (await house.result(cell)).value == "6"
    for seq in seqs:
        assert seq is not None
        await house.result(seq)
    assert house.host.commands == seqs


async def test_a_guest_that_knows_no_commands_gets_none_and_the_answer_says_so(house: House) -> None:
    house.host.is_old = True
    result = await run(house, "echo hello")

    assert "CommandsUnsupported" in str(result.error)
    assert house.host.commands == []
    assert await house.value("1 + 1") == "2"


async def test_entries_are_what_they_were_in_the_log() -> None:
    spec = CommandSpec(("ls", "-l"), cwd="/tmp", env={"A": "\u00e9"}, stdin=b"\0\xff", stdin_open=True)
    assert CommandSpec.from_text(spec.to_text()) == spec
    assert dataclasses.replace(spec, command="ls") == CommandSpec.from_text(
        dataclasses.replace(spec, command="ls").to_text()
    )
    assert CommandInput.from_text(CommandInput(b"\xfe", True).to_text()) == CommandInput(b"\xfe", True)
    assert CommandSignal.from_text(CommandSignal(9, session=True).to_text()) == CommandSignal(9, session=True)
