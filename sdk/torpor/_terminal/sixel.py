"""Pictures as Sixel graphics. Pure.

Source: DEC, VT330/VT340 Programmer Reference Manual, volume 2, chapter 14. A sixel is a column of six pixels of one
colour; a band of the picture, six pixels high, is drawn once for each colour in it.
"""

from __future__ import annotations

import re

from .png import Picture

_LEVELS = 6
"""Shades of each of red, green and blue: 216 colours, of the 256 that terminals have."""
_SHADES = bytes((value * (_LEVELS - 1) + 127) // 255 for value in range(256))
_RED = bytes(shade * _LEVELS * _LEVELS for shade in _SHADES)
_GREEN = bytes(shade * _LEVELS for shade in _SHADES)
_RUN = re.compile(r"(.)\1{3,}", re.DOTALL)


def encode(picture: Picture) -> str:
    """The sequence that draws a picture at the cursor and leaves the cursor below it."""
    rows = [_colours_of(row) for row in picture.rows]
    used = sorted(set().union(*map(set, rows)))
    parts = ["\x1bPq", f'"1;1;{picture.width};{picture.height}', *map(_definition, used)]
    for top in range(0, picture.height, 6):
        parts.append(_band(rows[top : top + 6]))
        parts.append("-")
    parts[-1] = "\x1b\\"
    return "".join(parts)


def _colours_of(row: bytes) -> bytes:
    """The number of each pixel's colour, among 216."""
    red, green, blue = row[0::3].translate(_RED), row[1::3].translate(_GREEN), row[2::3].translate(_SHADES)
    # A sum of each place without a carry between them, since no sum is over 215.
    total = int.from_bytes(red, "big") + int.from_bytes(green, "big") + int.from_bytes(blue, "big")
    return total.to_bytes(len(red), "big")


def _definition(colour: int) -> str:
    red, rest = divmod(colour, _LEVELS * _LEVELS)
    green, blue = divmod(rest, _LEVELS)
    shares = (shade * 100 // (_LEVELS - 1) for shade in (red, green, blue))
    return f"#{colour};2;{';'.join(map(str, shares))}"


def _band(rows: list[bytes]) -> str:
    lines = []
    for colour in sorted(set().union(*map(set, rows))):
        sixels = 0
        for bit, row in enumerate(rows):
            places = bytearray(256)
            places[colour] = 1 << bit
            sixels |= int.from_bytes(row.translate(places), "big")
        drawn = sixels.to_bytes(len(rows[0]), "big").translate(_SIXELS).decode("ascii")
        lines.append(f"#{colour}{_RUN.sub(_repeated, drawn.rstrip('?'))}")
    return "$".join(lines)


_SIXELS = bytes((value & 63) + 63 for value in range(256))


def _repeated(run: re.Match[str]) -> str:
    return f"!{len(run.group())}{run.group(1)}"
