"""Output on its way to the ledger."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from torpor_worker.output import OutputBatch
from torpor_worker.sandbox import Output

KINDS = st.sampled_from(["stdout", "stderr", "display"])


@given(st.lists(st.tuples(KINDS, st.binary(max_size=5))))
def test_neighbours_of_a_stream_are_joined_displays_never_and_nothing_is_lost(pieces: list[tuple[str, bytes]]) -> None:
    batch = OutputBatch()
    for kind, data in pieces:
        batch.add(Output(1, kind, data, background=False), 0.0)  # type: ignore[arg-type]
    records = batch.records()
    assert b"".join(record.data for record in records) == b"".join(data for _, data in pieces)
    assert batch.size_bytes == sum(len(data) for _, data in pieces)
    displays = [data for kind, data in pieces if kind == "display"]
    assert [record.data for record in records if record.kind == "display"] == displays
    for first, second in pairwise(records):
        assert first.kind != second.kind or first.kind == "display"


def test_output_of_another_instruction_does_not_fit() -> None:
    batch = OutputBatch()
    batch.add(Output(1, "stdout", b"a", background=False), 0.0)
    assert batch.accepts(Output(1, "stderr", b"b", background=False))
    assert not batch.accepts(Output(1, "stdout", b"b", background=True))
    assert not batch.accepts(Output(2, "stdout", b"b", background=False))
    batch.clear()
    assert batch.accepts(Output(2, "stdout", b"b", background=False))
