"""An instruction's clock and the steps that end it."""

from torpor_worker.config import WorkerConfig
from torpor_worker.instruction import Running
from torpor_worker.ledger import EndedBy, Entry, EntryKind

CONFIG = WorkerConfig()


def running(*, used_seconds: float = 0.0) -> Running:
    entry = Entry(1, EntryKind.EXECUTE, 0, 1, 1, timeout_seconds=15.0, code="")
    return Running(entry, 1, CONFIG, used_seconds=used_seconds)


def test_the_clock_stands_while_the_machine_is_paused() -> None:
    one = running()
    one.start(100)
    one.pause(105)
    assert one.used_seconds(1000) == 5
    one.start(1000)
    assert one.used_seconds(1002) == 7
    assert one.due_at(1002) == 1010


def test_time_used_before_a_stop_of_the_server_counts() -> None:
    one = running(used_seconds=14)
    one.start(100)
    assert one.due(100.5) is None
    assert one.due(101) == "interrupt"


def test_a_time_out_takes_its_steps_at_0_1_3_and_5_seconds() -> None:
    one = running()
    one.start(0)
    taken = [(now, step) for now in range(14, 30) if (step := one.due(now)) is not None]
    assert taken == [(15, "interrupt"), (16, "again"), (18, "kill"), (20, "remove")]
    assert one.ended_by is EndedBy.TIMEOUT
    assert one.step_names == ["interrupt", "again", "kill", "remove"]


def test_an_interrupt_takes_the_same_steps_and_stays_the_reason() -> None:
    one = running()
    one.start(0)
    one.stop(EndedBy.INTERRUPT, 14.5)
    taken = [(now, step) for now in (14.5, 15.5, 17.5, 19.5) if (step := one.due(now)) is not None]
    assert [step for _, step in taken] == ["interrupt", "again", "kill", "remove"]
    assert one.ended_by is EndedBy.INTERRUPT


def test_a_host_that_stood_still_does_not_take_all_steps_at_once() -> None:
    one = running()
    one.start(0)
    assert one.due(1000) == "interrupt"
    assert one.due(1000) is None
    assert one.due_at(1000) == 1001
