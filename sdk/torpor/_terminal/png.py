"""Reads PNG pictures into rows of RGB pixels, for terminals that take no PNG. Pure.

Source: PNG specification, third edition (W3C), sections 5 to 10.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

SIGNATURE = b"\x89PNG\r\n\x1a\n"
LARGEST_SIDE = 10_000
LARGEST_PIXELS = 4_000_000
"""What is decoded here; a larger picture takes seconds in plain Python."""

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""By colour type: grey, RGB, palette, grey and alpha, RGB and alpha."""


class NotReadable(ValueError):
    """No PNG, a damaged one, or one of a kind or size that is not read here."""


@dataclass(frozen=True)
class Picture:
    """Pixels by rows, three bytes each."""

    width: int
    height: int
    rows: tuple[bytes, ...]

    def no_wider_than(self, width: int) -> Picture:
        """The same, with only every second, third, … pixel of each direction if it is wider."""
        step = -(-self.width // width)
        if step <= 1:
            return self
        rows = tuple(_joined(row[0 :: 3 * step], row[1 :: 3 * step], row[2 :: 3 * step]) for row in self.rows[::step])
        return Picture(len(rows[0]) // 3, len(rows), rows)


def size_of(png: bytes) -> tuple[int, int] | None:
    """Width and height in pixels, from the header alone; None if it is no PNG, or its sides are beyond reason."""
    if len(png) < 33 or not png.startswith(SIGNATURE) or png[12:16] != b"IHDR":
        return None
    width, height = struct.unpack(">II", png[16:24])
    return (width, height) if 0 < width <= LARGEST_SIDE and 0 < height <= LARGEST_SIDE else None


def decode(png: bytes) -> Picture:
    """The pixels, on white where the picture is transparent. Raises `NotReadable`.

    Read are those with 8 bits a channel and no interlacing, which is what plotting libraries write.
    """
    size = size_of(png)
    if size is None:
        raise NotReadable("It is no PNG.")
    width, height = size
    depth, kind, _, _, interlaced = png[24:29]
    if depth != 8 or kind not in _CHANNELS or interlaced or width * height > LARGEST_PIXELS:
        raise NotReadable("It is a kind of PNG that is not read here.")
    channels = _CHANNELS[kind]
    packed, palette, transparency = bytearray(), b"", b""
    for name, body in _chunks(png):
        match name:
            case b"IDAT":
                packed += body
            case b"PLTE":
                palette = body
            case b"tRNS":
                transparency = body
    rows = _rows(_unpacked(packed, (width * channels + 1) * height), width, height, channels)
    return Picture(width, height, tuple(_rgb(row, kind, palette, transparency) for row in rows))


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(SIGNATURE)
    while at + 8 <= len(png):
        length = int.from_bytes(png[at : at + 4], "big")
        yield png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        at += length + 12


def _unpacked(packed: bytearray, length: int) -> bytes:
    try:
        unpacked = zlib.decompressobj().decompress(packed, length)
    except zlib.error as error:
        raise NotReadable("It is damaged.") from error
    if len(unpacked) != length:
        raise NotReadable("It ends in the middle.")
    return unpacked


def _rows(unpacked: bytes, width: int, height: int, channels: int) -> Iterator[bytes]:
    stride = width * channels
    above = bytearray(stride)
    for number in range(height):
        begin = number * (stride + 1)
        row = bytearray(unpacked[begin + 1 : begin + 1 + stride])
        _unfilter(unpacked[begin], row, above, channels)
        yield bytes(row)
        above = row


def _unfilter(kind: int, row: bytearray, above: bytearray, step: int) -> None:
    """Undo a row's filter in place; `above` is the row before it, and `step` the bytes of a pixel."""
    match kind:
        case 0:
            pass
        case 1:
            for at in range(step, len(row)):
                row[at] = (row[at] + row[at - step]) & 255
        case 2:
            row[:] = bytes([(here + up) & 255 for here, up in zip(row, above, strict=True)])
        case 3:
            for at in range(len(row)):
                left = row[at - step] if at >= step else 0
                row[at] = (row[at] + (left + above[at]) // 2) & 255
        case 4:
            for at in range(len(row)):
                left, corner = (row[at - step], above[at - step]) if at >= step else (0, 0)
                row[at] = (row[at] + _paeth(left, above[at], corner)) & 255
        case _:
            raise NotReadable("It is damaged.")


def _paeth(left: int, up: int, corner: int) -> int:
    estimate = left + up - corner
    to_left, to_up, to_corner = abs(estimate - left), abs(estimate - up), abs(estimate - corner)
    if to_left <= to_up and to_left <= to_corner:
        return left
    return up if to_up <= to_corner else corner


def _rgb(row: bytes, kind: int, palette: bytes, transparency: bytes) -> bytes:
    match kind:
        case 0:
            return _joined(row, row, row)
        case 2:
            return row
        case 3:
            planes = [bytes(_of_palette(palette, transparency, channel)) for channel in range(3)]
            return _joined(*(row.translate(plane) for plane in planes))
        case 4:
            return _on_white((row[0::2], row[0::2], row[0::2]), row[1::2])
        case _:
            return _on_white((row[0::4], row[1::4], row[2::4]), row[3::4])


def _of_palette(palette: bytes, transparency: bytes, channel: int) -> Iterator[int]:
    for index in range(256):
        colour = palette[index * 3 + channel] if index * 3 + channel < len(palette) else 0
        alpha = transparency[index] if index < len(transparency) else 255
        yield (colour * alpha + 255 * (255 - alpha)) // 255


def _on_white(planes: tuple[bytes, bytes, bytes], alpha: bytes) -> bytes:
    if alpha.count(255) == len(alpha):
        return _joined(*planes)
    return _joined(
        *(
            bytes([(colour * a + 255 * (255 - a)) // 255 for colour, a in zip(plane, alpha, strict=True)])
            for plane in planes
        )
    )


def _joined(red: bytes, green: bytes, blue: bytes) -> bytes:
    row = bytearray(3 * len(red))
    row[0::3], row[1::3], row[2::3] = red, green, blue
    return bytes(row)
