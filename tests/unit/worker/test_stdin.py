"""What instructions read is of the log: it survives saves in the middle, sleeps, deaths and replays."""

from tests.support.house import House, until

from torpor_worker.command import CommandInput
from torpor_worker.stdin import Stdin

OPEN = Stdin("", open=True)


def feed(house: House, seq: int, text: str, *, close: bool = False) -> None:
    house.worker.deliver("m", house.ledger.accept_input("m", seq, CommandInput(text.encode(), close)))


async def runs(house: House, seq: int) -> None:
    await until(lambda: house.entry(seq).position is not None)
    await until(lambda: any(frame[0] == seq for frame in house.host.frames))


async def test_a_replay_reads_what_was_read_at_first(house: House) -> None:
    seq = house.send("a = [input(), input()]", stdin=Stdin("one\ntwo\n"))
    await house.result(seq)
    await house.crash()
    await house.start()

    assert await house.value("a") == "['one', 'two']"
    assert house.machine().notices["replayed"][1] == [seq]
    assert "differed" not in house.machine().notices


async def test_answers_that_came_while_it_ran_are_replayed_in_their_place(house: House) -> None:
    seq = house.send("lines(2)", stdin=Stdin("one\n", open=True))
    await runs(house, seq)
    feed(house, seq, "two\n")
    assert (await house.result(seq)).value == "['one', 'two']"
    await house.run("b = 1")
    await house.crash()
    await house.start()

    assert await house.value("b") == "1"
    assert house.machine().notices["replayed"][1] == [seq, seq + 1]
    assert "differed" not in house.machine().notices


async def test_a_careful_replay_does_not_wait_for_an_end_that_comes_behind_the_answers(house: House) -> None:
    seq = house.send("lines(1)", stdin=OPEN)
    await runs(house, seq)
    feed(house, seq, "one\n")
    await house.result(seq)
    culprit = house.send("die_later(0)")
    await until(lambda: "undone" in house.machine().notices)

    assert house.machine().notices["undone"][1] == [culprit]
    assert await house.value("1 + 1") == "2"
    assert "differed" not in house.machine().notices


async def test_an_instruction_that_waits_for_an_answer_is_recovered_and_answered(house: House) -> None:
    seq = house.send("lines(2)", stdin=OPEN)
    await runs(house, seq)
    feed(house, seq, "one\n")
    await until(lambda: all(entry.position is not None for entry in house.machine().log))
    await house.crash()
    await house.start()
    await until(lambda: house.entry(seq).attempt == 2)
    feed(house, seq, "two\n")

    assert (await house.result(seq)).value == "['one', 'two']"


async def test_an_instruction_that_waits_for_an_answer_is_saved_in_the_middle_and_goes_on(house: House) -> None:
    seq = house.send("lines(2)", stdin=Stdin("one\n", open=True))
    await runs(house, seq)
    await house.restart()
    feed(house, seq, "two\n")

    assert (await house.result(seq)).value == "['one', 'two']"
    assert house.entry(seq).attempt == 1


async def test_an_answer_for_what_has_ended_is_nobodys(house: House) -> None:
    first = house.send("lines(1)", stdin=OPEN)
    await runs(house, first)
    await house.worker.interrupt("m", first)
    await house.result(first)
    second = house.send("lines(1)", stdin=OPEN)
    await runs(house, second)
    feed(house, first, "late\n")
    feed(house, second, "mine\n")

    assert (await house.result(second)).value == "['mine']"
