"""Output records to the lines that part 1 of the API sends. Pure."""

from __future__ import annotations

from dataclasses import dataclass

STREAMS = ("stdout", "stderr")


@dataclass(frozen=True, slots=True)
class Chunk:
    """One line of output; `seq` counts from 0 per instruction over both streams."""

    stream: str
    """stdout or stderr."""
    data: str
    seq: int

    def as_json(self) -> dict[str, str | int]:
        """Exactly the three keys that ForeverVM's clients know, in their order."""
        return {"stream": self.stream, "data": self.data, "seq": self.seq}


class LineSplitter:
    """Cuts an instruction's output into lines, numbered in the order in which they became whole.

    The same records give the same chunks, however they are cut. Bytes that are not UTF-8 become U+FFFD.
    """

    def __init__(self) -> None:
        self._pieces: dict[str, list[bytes]] = {stream: [] for stream in STREAMS}
        self._last = "stdout"
        self._next_seq = 0

    def feed(self, stream: str, data: bytes) -> list[Chunk]:
        """The lines that `data` completes."""
        self._last = stream
        *whole, rest = data.split(b"\n")
        chunks = []
        for line in whole:
            self._pieces[stream].append(line)
            chunks.append(self._take(stream))
        if rest:
            self._pieces[stream].append(rest)
        return chunks

    def finish(self, marker: str | None = None) -> list[Chunk]:
        """What is left without a newline at its end, the stream written last coming last; then the marker."""
        order = sorted(STREAMS, key=lambda stream: stream == self._last)
        chunks = [self._take(stream) for stream in order if self._pieces[stream]]
        if marker is not None:
            self._pieces["stderr"].append(marker.encode())
            chunks.append(self._take("stderr"))
        return chunks

    def _take(self, stream: str) -> Chunk:
        line = b"".join(self._pieces[stream])
        self._pieces[stream] = []
        chunk = Chunk(stream, line.decode("utf-8", "replace"), self._next_seq)
        self._next_seq += 1
        return chunk


EXPIRED_MARKER = "[the output of this instruction is not kept any more]"
"""What stands in the place of output that has expired."""


def truncation_marker(truncated_bytes: int) -> str:
    """What stands at the end of output that was cut."""
    return f"[{truncated_bytes} more bytes of output were over the limit and not kept]"
