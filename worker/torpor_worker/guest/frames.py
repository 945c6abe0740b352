"""Frames: how host and guest talk over two byte streams that may be cut, lose bytes or be taken over at any point.

A frame is a header (magic, protocol version, type, length of the body, checksum, number) and a body. The number is the
log position of what the host sends for the log, the serial number of what the guest sends to be kept, and -1 else.
A marker (16 bytes that no frame contains) in front of a frame says that whatever came before it is abandoned.
"""

from __future__ import annotations

import enum
import struct
import zlib
from typing import NamedTuple

PROTOCOL_VERSION = 0
MAGIC = b"\xd7\x70"
PREFIX = struct.Struct(">2sBBIq")
HEADER = struct.Struct(">2sBBIqI")
"""The checksum, CRC-32 over prefix and body, comes last."""
BODY_LIMIT_BYTES = 8 << 20
ASK_LIMIT_BYTES = 256 << 10
"""The longest ask for packages."""
HOST_MARKER = bytes.fromhex("f7d1a9e3b8c6fa95e2d0bd8fc9ffa1ee")
"""In front of each hello. No body of the host's has it: all are ASCII, but for pieces of files."""
OUTPUT = struct.Struct(">qBB")
"""In front of a piece of output: seq (-1: none), kind (index into `OUTPUT_KINDS`), flags."""
BACKGROUND = 1
HAS_OFFSET = 2
"""An offset follows; the first guest sends none."""
SKIPPED = 4
"""Of a command's: instead of bytes their number follows (8), since nobody keeps so many."""
OFFSET = struct.Struct(">Q")
"""How many bytes were said under this seq before this piece, since the instruction was begun."""
OUTPUT_KINDS = ("stdout", "stderr", "display")
RESULT = struct.Struct(">q")
"""In front of a result's JSON: its seq."""
FILE_END, FILE_CANCEL, FILE_BASE64 = 1, 2, 4
"""Flags in front of a piece of a file from the host. In base64 are pieces that have `HOST_MARKER` in them."""


class FrameType(enum.IntEnum):
    """What a frame is. The host sends those below 64, the guest the others."""

    LOAD = 1
    HELLO = 2
    CONFIGURE = 3
    PING = 4
    ACKNOWLEDGE = 5
    EXECUTE = 6
    RESEED = 7
    INTERRUPT = 8
    KILL_LARGEST = 9
    FILE_OPEN = 10
    FILE_DATA = 11
    FILE_MORE = 12
    FILE_APPLY = 13
    COMMAND = 14
    COMMAND_INPUT = 15
    COMMAND_SIGNAL = 16
    COMPLETE = 18
    STDIN = 19
    UPGRADE = 20
    PACKAGES = 21
    REHEARSE = 22
    STATE = 64
    PONG = 65
    READY = 66
    OUTPUT = 67
    RESULT = 68
    DIED = 69
    NOTICE = 70
    FILE_STATE = 71
    FILE_BYTES = 72
    FILE_ENDED = 73
    COMMAND_OUTPUT = 74
    COMMAND_ENDED = 75
    COMPLETION = 78
    UPGRADED = 84
    PACKAGES_WANTED = 85


class ProtocolError(Exception):
    """What came is not what this protocol allows."""


class Frame(NamedTuple):
    """A frame as received. The type may be one that is not known."""

    type: int
    number: int
    body: bytes


def encode(kind: int, number: int, body: bytes) -> bytes:
    """The bytes of one frame."""
    prefix = PREFIX.pack(MAGIC, PROTOCOL_VERSION, kind, len(body), number)
    return b"%b%b%b" % (prefix, zlib.crc32(body, zlib.crc32(prefix)).to_bytes(4, "big"), body)


class FrameReader:
    """Makes frames of bytes, cut anywhere. Nothing is a frame until the marker has come.

    With `restarts`, the marker may come again at any point: what is before it, half a frame too, is abandoned.
    """

    def __init__(self, marker: bytes, *, restarts: bool) -> None:
        self._marker = marker
        self._restarts = restarts
        self._seeking = True
        self._buffer = bytearray()

    @property
    def rest(self) -> tuple[bool, bytes]:
        """Whether it still looks for the marker, and what has come that is no whole frame yet."""
        return self._seeking, bytes(self._buffer)

    def go_on_with(self, seeking: bool, buffer: bytes) -> None:
        """Begin with the `rest` of another reader."""
        self._seeking, self._buffer = seeking, bytearray(buffer)

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes. After a `ProtocolError` nothing is a frame until the next marker."""
        buffer = self._buffer
        searched = max(0, len(buffer) - len(self._marker) + 1)
        buffer += data
        if self._seeking or self._restarts:
            found = buffer.rfind(self._marker, searched)
            if found >= 0:
                del buffer[: found + len(self._marker)]
                self._seeking = False
            elif self._seeking:
                del buffer[: max(0, len(buffer) - len(self._marker) + 1)]
                return []
        frames: list[Frame] = []
        start, end = 0, len(buffer)
        try:
            while end - start >= HEADER.size:
                magic, version, kind, length, number, checksum = HEADER.unpack_from(buffer, start)
                if magic != MAGIC or version != PROTOCOL_VERSION or length > BODY_LIMIT_BYTES:
                    raise ProtocolError("a frame's header is not one of this protocol")
                body_start = start + HEADER.size
                body_end = body_start + length
                if end < body_end:
                    break
                body = bytes(buffer[body_start:body_end])
                if zlib.crc32(body, zlib.crc32(buffer[start : body_start - 4])) != checksum:
                    raise ProtocolError("a frame's checksum is wrong")
                frames.append(Frame(kind, number, body))
                start = body_end
        except ProtocolError:
            if not self._may_be_cut_short(buffer):
                buffer.clear()
                self._seeking = True
                raise
        if start:
            del buffer[:start]
        return frames

    def _may_be_cut_short(self, buffer: bytearray) -> bool:
        """Whether what seems wrong may be half a frame and the beginning of the marker, whose end is yet to come."""
        return self._restarts and any(buffer.endswith(self._marker[:size]) for size in range(1, len(self._marker)))
