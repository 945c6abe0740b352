"""Output on the disk: append-only segment files, one folder per machine. Rows say what of them is committed."""

from __future__ import annotations

import os
import shutil
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from torpor_worker.ledger import OutputRecord

SEGMENT_LIMIT_BYTES = 64 * 1024 * 1024
OPEN_FILES_LIMIT = 64
_HEADER = struct.Struct("<BI")
_KINDS = ("stdout", "stderr", "display")


def pack(records: Iterable[OutputRecord]) -> bytes:
    """Records as they are stored: kind (1 byte), length (4 bytes, little endian), bytes."""
    parts: list[bytes] = []
    for record in records:
        parts.append(_HEADER.pack(_KINDS.index(record.kind), len(record.data)))
        parts.append(record.data)
    return b"".join(parts)


def unpack(stored: bytes) -> Iterator[OutputRecord]:
    """The records in `stored`. Raises ValueError if it was damaged."""
    place = 0
    while place < len(stored):
        if len(stored) - place < _HEADER.size:
            raise ValueError("stored output ends in the middle of a record")
        kind, length = _HEADER.unpack_from(stored, place)
        place += _HEADER.size
        if kind >= len(_KINDS) or place + length > len(stored):
            raise ValueError("stored output is damaged")
        yield OutputRecord(_KINDS[kind], stored[place : place + length])
        place += length


@dataclass(frozen=True, slots=True)
class Place:
    """Where a piece of output lies."""

    segment: int
    start: int
    size_bytes: int


@dataclass(slots=True)
class _Segment:
    number: int
    file: int
    end: int
    dirty: bool = False


class Segments:
    """Every machine's segment files. Writing is the writer thread's alone; reading is anybody's.

    `committed` (given to `append`) tells the last segment of a machine and how much of it the rows refer to: what lies
    behind that when a file is opened is the torn tail of a commit that never was, and is cut.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._open: OrderedDict[str, _Segment] = OrderedDict()

    def append(self, machine: str, stored: bytes, committed: Callable[[], tuple[int, int]]) -> Place:
        """Write behind what is there. Durable after `flush`."""
        segment = self._open.get(machine)
        if segment is None:
            segment = self._open_segment(machine, *committed())
        elif segment.end >= SEGMENT_LIMIT_BYTES:
            self._flush_one(segment)
            os.close(segment.file)
            segment = self._open_segment(machine, segment.number + 1, 0)
        self._open.move_to_end(machine)
        place = Place(segment.number, segment.end, len(stored))
        segment.dirty = True
        rest = memoryview(stored)
        while rest:
            written = os.pwrite(segment.file, rest, segment.end)
            segment.end += written
            rest = rest[written:]
        return place

    def read(self, machine: str, place: Place) -> bytes:
        """A piece that is committed. Raises FileNotFoundError once the machine is deleted."""
        with self._path(machine, place.segment).open("rb") as file:
            file.seek(place.start)
            return file.read(place.size_bytes)

    def mark(self) -> dict[str, tuple[int, int]]:
        """How far each open file goes, for `rewind`."""
        return {machine: (segment.number, segment.end) for machine, segment in self._open.items() if segment.dirty}

    def rewind(self, mark: dict[str, tuple[int, int]]) -> None:
        """Give up what was appended since `mark`; it will be written over."""
        for machine, segment in list(self._open.items()):
            if not segment.dirty:
                continue
            if machine in mark and mark[machine][0] == segment.number:
                segment.end = mark[machine][1]
            else:
                self._close_one(machine)

    def flush(self) -> None:
        """Make every appended byte durable."""
        for segment in self._open.values():
            self._flush_one(segment)
        while len(self._open) > OPEN_FILES_LIMIT:
            self._close_one(next(iter(self._open)))

    def forget(self) -> None:
        """Close every file: how far they are committed is to be read from the rows again."""
        for machine in list(self._open):
            self._close_one(machine)

    def remove(self, machine: str) -> None:
        """Delete a machine's files, after its rows."""
        if machine in self._open:
            self._close_one(machine)
        shutil.rmtree(self._folder / machine, ignore_errors=True)

    def numbers(self, machine: str) -> set[int]:
        """Of a machine's files."""
        return {int(path.stem) for path in (self._folder / machine).glob("*.segment")}

    def keep_only(self, machine: str, referred: set[int]) -> None:
        """Delete those of a machine's files that no row refers to, neither committed nor about to be."""
        for number in self.numbers(machine) - referred:
            segment = self._open.get(machine)
            if segment is not None and segment.number == number:
                self._close_one(machine)
            self._path(machine, number).unlink(missing_ok=True)

    def machines(self) -> set[str]:
        """Machines that have files."""
        return {path.name for path in self._folder.iterdir()}

    def _path(self, machine: str, number: int) -> Path:
        return self._folder / machine / f"{number:08}.segment"

    def _open_segment(self, machine: str, number: int, committed_bytes: int) -> _Segment:
        path = self._path(machine, number)
        is_new = not path.exists()
        path.parent.mkdir(exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(file, committed_bytes)
        if is_new:
            _flush_folder(path.parent)
            _flush_folder(self._folder)
        segment = self._open[machine] = _Segment(number, file, committed_bytes)
        return segment

    def _flush_one(self, segment: _Segment) -> None:
        if segment.dirty:
            os.fdatasync(segment.file)
            segment.dirty = False

    def _close_one(self, machine: str) -> None:
        os.close(self._open.pop(machine).file)


def _flush_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
