"""Lines of output: the same, however the records are cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from torpor_api.events import EventMaker, merge_text
from torpor_api.ledger import OutputPage
from torpor_api.lines import LineSplitter
from torpor_worker.ledger import OutputRecord

pieces = st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.binary(min_size=1, max_size=12)), max_size=20)
texts = st.text(alphabet="aé🙂\n\r", min_size=1, max_size=12)


def lines(records: list[tuple[str, bytes]]) -> list[tuple[str, str, int]]:
    splitter = LineSplitter()
    chunks = [chunk for stream, data in records for chunk in splitter.feed(stream, data)]
    return [(chunk.stream, chunk.data, chunk.seq) for chunk in [*chunks, *splitter.finish()]]


@given(pieces)
def test_lines_do_not_depend_on_how_the_output_was_cut(records: list[tuple[str, bytes]]) -> None:
    bytewise = [(stream, bytes([byte])) for stream, data in records for byte in data]

    assert lines(records) == lines(bytewise)


@given(pieces)
def test_chunks_are_numbered_over_both_streams_and_hold_no_newline(records: list[tuple[str, bytes]]) -> None:
    chunks = lines(records)

    assert [seq for _, _, seq in chunks] == list(range(len(chunks)))
    assert not any("\n" in data for _, data, _ in chunks)


@given(texts)
def test_events_keep_characters_that_are_cut_between_records(text: str) -> None:
    data = text.encode()
    records = [(offset, OutputRecord("stdout", data[offset : offset + 1])) for offset in range(len(data))]
    page = OutputPage(
        records=records,
        attempt=1,
        end=len(data),
        more=False,
        finished=True,
        truncated_bytes=0,
        background_truncated_bytes=0,
        restarted_from=None,
        background_from=None,
    )

    assert merge_text(EventMaker().page(page)) == [{"type": "stdout", "id": f"1.{len(data)}", "text": text}]


def test_what_is_left_comes_last_from_the_stream_that_was_written_last() -> None:
    assert lines([("stdout", b"a"), ("stderr", b"b"), ("stdout", b"c")]) == [("stderr", "b", 0), ("stdout", "ac", 1)]
