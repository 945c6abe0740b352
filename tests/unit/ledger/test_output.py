from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from tests.support.ledger import ACCOUNT, awake, memory_folder, new_machine, open_ledger, result, started, stdout

from torpor_api.ledger import OutputPage, SqlLedger
from torpor_api.ledger.output import INLINE_LIMIT_BYTES
from torpor_api.ledger.schema import output_pieces
from torpor_worker.ledger import Hold, OutputRecord

BIG = b"x" * (INLINE_LIMIT_BYTES + 1)


def joined(page: OutputPage) -> bytes:
    return b"".join(record.data for _, record in page.records)


async def everything(ledger: SqlLedger, machine: str, seq: int, limit_bytes: int = 1024) -> bytes:
    """All output of the newest attempt, by pages; checks that offsets and sizes fit."""
    parts = []
    end = 0
    while True:
        page = await ledger.output(machine, seq, after=end, limit_bytes=limit_bytes, background=True)
        for offset, record in page.records:
            assert offset == end
            parts.append(record.data)
            end += len(record.data)
        assert page.end == end
        if not page.more:
            return b"".join(parts)


async def test_output_comes_in_order_over_streams_and_displays(ledger: SqlLedger, hold: Hold) -> None:
    await started(ledger, hold)
    records = [stdout("one\n"), OutputRecord("stderr", b"\xff\n"), OutputRecord("display", b'{"data": {}}')]
    await ledger.append_output(hold, 0, 1, records[:2], background=False)
    before = await ledger.output(hold.machine, 0)
    await ledger.finish(hold, 0, 1, result(), output=records[2:])
    after = await ledger.output(hold.machine, 0, attempt=1, after=before.end)

    assert (before.records, before.finished) == ([(0, records[0]), (4, records[1])], False)
    assert (after.records, after.finished, after.end) == ([(6, records[2])], True, 18)


async def test_small_output_of_a_result_costs_no_flush_of_a_file(ledger: SqlLedger, hold: Hold, tmp_path: Path) -> None:
    await started(ledger, hold)
    await ledger.finish(hold, 0, 1, result(), output=[stdout("x" * INLINE_LIMIT_BYTES)])
    assert list((tmp_path / "output").iterdir()) == []

    await started(ledger, hold)
    await ledger.finish(hold, 1, 1, result(), output=[stdout(BIG)])
    assert [path.name for path in (tmp_path / "output").iterdir()] == [hold.machine]
    assert await everything(ledger, hold.machine, 1) == BIG


async def test_output_over_the_limit_is_cut_and_counted(tmp_path: Path) -> None:
    ledger = await open_ledger(tmp_path, output_limit_bytes=10)
    hold = await awake(ledger, await new_machine(ledger))
    await started(ledger, hold)
    await ledger.append_output(hold, 0, 1, [stdout("12345678"), stdout("90ab"), stdout("c")], background=False)
    await ledger.finish(hold, 0, 1, result(), output=[stdout("d")])
    await ledger.append_output(hold, 0, 1, [stdout("late")], background=True)
    page = await ledger.output(hold.machine, 0, background=True)
    ends = await ledger.output_offset(hold, 0, 1), await ledger.output_given(hold, 0, 1)
    await ledger.close()

    assert joined(page) == b"1234567890"
    assert ends == (10, 18)
    assert (page.truncated_bytes, page.background_truncated_bytes) == (4, 4)


async def test_a_display_over_the_limit_is_left_out_whole(tmp_path: Path) -> None:
    ledger = await open_ledger(tmp_path, output_limit_bytes=10)
    hold = await awake(ledger, await new_machine(ledger))
    await started(ledger, hold)
    await ledger.append_output(hold, 0, 1, [OutputRecord("display", b"12345678901"), stdout("x")], background=False)
    page = await ledger.output(hold.machine, 0)
    await ledger.close()

    assert (page.records, page.truncated_bytes) == ([], 12)


async def test_output_after_the_result_is_marked_as_background(ledger: SqlLedger, hold: Hold) -> None:
    await started(ledger, hold)
    await ledger.finish(hold, 0, 1, result(), output=[stdout("in time")])
    await ledger.append_output(hold, 0, 1, [stdout(" late")], background=True)

    foreground = await ledger.output(hold.machine, 0)
    both = await ledger.output(hold.machine, 0, background=True)
    assert (joined(foreground), foreground.background_from) == (b"in time", None)
    assert (joined(both), both.background_from) == (b"in time late", 7)


async def test_a_reader_past_the_point_of_restart_is_told_where_to_go_on(ledger: SqlLedger, hold: Hold) -> None:
    await started(ledger, hold)
    await ledger.append_output(hold, 0, 1, [stdout("1 2 3 4 ")], background=False)
    await ledger.count_attempt(hold, 0, 4)
    await ledger.append_output(hold, 0, 2, [stdout("three ")], background=False)

    ahead = await ledger.output(hold.machine, 0, attempt=1, after=6)
    level = await ledger.output(hold.machine, 0, attempt=1, after=4)
    assert (ahead.restarted_from, ahead.attempt, joined(ahead), ahead.records[0][0]) == (4, 2, b"three ", 4)
    assert (level.restarted_from, joined(level)) == (None, b"three ")
    assert joined(await ledger.output(hold.machine, 0)) == b"1 2 three "
    assert joined(await ledger.output(hold.machine, 0, after=6)) == b"ree "
    assert await ledger.output_offset(hold, 0, 2) == 10


async def test_an_attempt_that_is_over_cannot_write(ledger: SqlLedger, hold: Hold) -> None:
    await started(ledger, hold)
    await ledger.count_attempt(hold, 0, 0)

    with pytest.raises(ValueError, match="not the newest"):
        await ledger.append_output(hold, 0, 1, [stdout("x")], background=False)


async def test_output_goes_with_its_machine(ledger: SqlLedger, hold: Hold, tmp_path: Path) -> None:
    await started(ledger, hold)
    await ledger.finish(hold, 0, 1, result(), output=[stdout(BIG)])
    await ledger.delete_machine(ACCOUNT, hold.machine)

    assert list((tmp_path / "output").iterdir()) == []
    assert await ledger._readers.run(lambda connection: connection.execute(select(output_pieces)).all()) == []


async def test_files_of_a_machine_whose_deletion_was_cut_short_are_removed_at_the_next_start(
    ledger: SqlLedger, hold: Hold, tmp_path: Path
) -> None:
    await started(ledger, hold)
    await ledger.append_output(hold, 0, 1, [stdout(BIG)], background=False)
    (tmp_path / "output" / "orphan").mkdir()
    await ledger.close()

    again = await open_ledger(tmp_path)
    assert [path.name for path in (tmp_path / "output").iterdir()] == [hold.machine]
    await again.close()


async def test_a_torn_tail_is_written_over(ledger: SqlLedger, hold: Hold, tmp_path: Path) -> None:
    await started(ledger, hold)
    await ledger.append_output(hold, 0, 1, [stdout(BIG)], background=False)
    [segment] = (tmp_path / "output" / hold.machine).iterdir()
    await ledger.close()
    with segment.open("ab") as file:
        file.write(b"torn")

    again = await open_ledger(tmp_path)
    hold_again = await awake(again, hold.machine)
    await again.append_output(hold_again, 0, 1, [stdout(BIG)], background=False)
    assert await everything(again, hold.machine, 0) == BIG + BIG
    assert b"torn" not in segment.read_bytes()
    await again.close()


async def test_output_of_an_operation_that_failed_leaves_no_gap(ledger: SqlLedger, hold: Hold) -> None:
    await started(ledger, hold)
    other = await awake(ledger, await new_machine(ledger))
    await started(ledger, other)
    await ledger.append_output(hold, 0, 1, [stdout(BIG)], background=False)

    async def append(hold: Hold, attempt: int, data: bytes) -> None:
        await ledger.append_output(hold, 0, attempt, [stdout(data)], background=False)

    answers = await asyncio.gather(
        append(hold, 1, b"a" * len(BIG)),
        append(hold, 7, b"never" * len(BIG)),
        append(other, 1, b"b" * len(BIG)),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers] == [type(None), ValueError, type(None)]
    assert await everything(ledger, hold.machine, 0) == BIG + b"a" * len(BIG)
    assert await everything(ledger, other.machine, 0) == b"b" * len(BIG)


CHUNKS = st.lists(
    st.tuples(st.sampled_from(["stdout", "stderr"]), st.one_of(st.binary(max_size=40), st.just(BIG[:5000]))), max_size=4
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), CHUNKS),
        st.tuples(st.just("restart"), st.integers(0, 12_000)),
        st.tuples(st.just("reopen"), st.just(0)),
    ),
    max_size=12,
)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(steps=STEPS, page_bytes=st.sampled_from([1, 7, 4096, 1 << 20]), after=st.integers(0, 12_000))
async def test_any_reader_sees_the_newest_attempts_sequence(
    steps: list[tuple[str, object]], page_bytes: int, after: int
) -> None:
    with memory_folder() as folder:
        await check_every_reader(Path(folder), steps, page_bytes, after)


async def check_every_reader(folder: Path, steps: list[tuple[str, object]], page_bytes: int, after: int) -> None:
    ledger = await open_ledger(folder)
    machine = await new_machine(ledger)
    hold = await awake(ledger, machine)
    await started(ledger, hold)
    attempt, expected = 1, b""
    histories = {1: b""}
    for step, argument in steps:
        if step == "write":
            assert isinstance(argument, list)
            records = [OutputRecord(kind, data) for kind, data in argument]
            await ledger.append_output(hold, 0, attempt, records, background=False)
            expected += b"".join(record.data for record in records)
        elif step == "restart":
            assert isinstance(argument, int)
            attempt = await ledger.count_attempt(hold, 0, argument)
            expected = expected[:argument]
        else:
            await ledger.close()
            ledger = await open_ledger(folder)
            hold = await awake(ledger, machine)
        histories[attempt] = expected

    assert await ledger.output_offset(hold, 0, attempt) == len(expected)
    assert await everything(ledger, machine, 0, max(page_bytes, len(expected) // 50)) == expected
    assert joined(await ledger.output(machine, 0, after=after)) == expected[after:]
    for earlier, history in histories.items():  # a reader that had read some of an earlier attempt, up to `after`
        reached = min(after, len(history))
        page = await ledger.output(machine, 0, attempt=earlier, after=reached)
        place = reached if page.restarted_from is None else page.restarted_from
        assert place <= reached
        assert history[:place] + joined(page) == expected
    await ledger.close()
