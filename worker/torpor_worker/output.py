"""Output on its way to the ledger."""

from __future__ import annotations

from torpor_worker.ledger import OutputRecord
from torpor_worker.sandbox import Output


class OutputBatch:
    """Output of one instruction that is not durable yet, in order; neighbours of one stream are joined when taken."""

    __slots__ = ("_kinds", "_pieces", "background", "offset", "seq", "since", "size_bytes")

    def __init__(self) -> None:
        self.seq: int | None = None
        self.background = False
        self.offset: int | None = None
        """Where its first piece is, as the guest counts."""
        self.size_bytes = 0
        self.since = 0.0
        self._kinds: list[str] = []
        self._pieces: list[bytes] = []

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def accepts(self, output: Output) -> bool:
        """Whether it belongs to the same instruction as what is here."""
        return not self._pieces or (output.seq == self.seq and output.background == self.background)

    def add(self, output: Output, now: float) -> None:
        """Add a piece that it accepts."""
        if not self._pieces:
            self.seq, self.background, self.since = output.seq, output.background, now
            self.offset = output.offset
        self._kinds.append(output.kind)
        self._pieces.append(output.data)
        self.size_bytes += len(output.data)

    def records(self) -> list[OutputRecord]:
        """What is here, as it is stored. Nothing is removed: call `clear` once it is durable."""
        records: list[OutputRecord] = []
        start = 0
        for index, kind in enumerate(self._kinds):
            last = index + 1 == len(self._kinds)
            if last or kind == "display" or self._kinds[index + 1] != kind:
                records.append(OutputRecord(kind, b"".join(self._pieces[start : index + 1])))
                start = index + 1
        return records

    def clear(self) -> None:
        """Forget what is here."""
        self._kinds.clear()
        self._pieces.clear()
        self.size_bytes = 0
