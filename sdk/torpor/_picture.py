"""Pictures that a machine shows, checked: one that the service of a model refuses would block its conversation."""

from __future__ import annotations

import struct
import zlib

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">II")
_MOST_BYTES = 3_750_000  # 5 MB in base64, Anthropic's limit; OpenAI's is higher
_MOST_PIXELS_A_SIDE = 8000


def reason_against(picture: bytes) -> str | None:
    """Why a model's service would not take this as a PNG file; None if it will."""
    size = _size(picture)
    if size is None:
        return "it is no valid PNG file"
    if len(picture) > _MOST_BYTES:
        return f"it has {len(picture)} bytes, more than {_MOST_BYTES}"
    if max(size) > _MOST_PIXELS_A_SIDE:
        return f"it is {size[0]} by {size[1]} pixels, more than {_MOST_PIXELS_A_SIDE} a side"
    return None


def _size(picture: bytes) -> tuple[int, int] | None:
    """Width and height of a PNG file whose chunks are whole; None for anything else."""
    if not picture.startswith(_SIGNATURE):
        return None
    position, size, kinds = len(_SIGNATURE), (0, 0), []
    while position + 12 <= len(picture):
        (length,) = struct.unpack_from(">I", picture, position)
        end = position + 12 + length
        kind, data = picture[position + 4 : position + 8], picture[position + 8 : end - 4]
        if end > len(picture) or picture[end - 4 : end] != struct.pack(">I", zlib.crc32(kind + data)):
            return None
        if kind == b"IHDR" and length >= _HEADER.size:
            size = _HEADER.unpack_from(data)
        kinds.append(kind)
        position = end
    whole = kinds[:1] == [b"IHDR"] and b"IDAT" in kinds and kinds[-1] == b"IEND"
    return size if whole and min(size) > 0 and position == len(picture) else None
