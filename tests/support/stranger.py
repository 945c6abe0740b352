"""A reader of snapshots by somebody who has docs/snapshot-format.md, docs/stores.md and no line of ours.

It reads slowly, and checks only what the ciphers check. Nothing of the project may be imported here.
"""

import json
import struct
from pathlib import Path
from typing import Any

from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap
from zstandard import DICT_TYPE_RAWCONTENT, ZstdCompressionDict, ZstdDecompressor

PAGE = 4096
A_FRAME = 128
LIMIT = 1 << 30


def machine_key(keys: Path, machine: str) -> bytes:
    blob = (keys / "machines" / machine).read_bytes()
    master = (keys / "masters" / str(struct.unpack(">I", blob[:4])[0])).read_bytes()
    return AESGCM(master).decrypt(blob[4:16], blob[16:], machine.encode())


def runs(table: bytes) -> list[tuple[int, int]]:
    """For each page: pack (0: none) and the number in it."""
    n = len(table) // 10
    counts, packs, firsts = (
        struct.unpack_from(f"<{n}{kind}", table, at) for kind, at in (("I", 0), ("H", 4 * n), ("I", 6 * n))
    )
    return [(p, f + i if p else 0) for c, p, f in zip(counts, packs, firsts, strict=True) for i in range(c)]


class Snapshot:
    def __init__(self, store: Path, keys: Path, name: str) -> None:
        self.store = store
        self.opened: dict[tuple[int, int], bytes] = {}
        blob = (store / name).read_bytes()
        magic, version, self.generation, length = struct.unpack_from("<8sHQH", blob)
        assert (magic, version) == (b"TORPSNAP", 1)
        head = blob[: 20 + length]
        self.machine = head[20:].decode()
        key = machine_key(keys, self.machine)
        sealing = blake3(key, derive_key_context="torpor snapshot format 1: manifests").digest()
        self.wrapping = blake3(key, derive_key_context="torpor snapshot format 1: pack secrets").digest()
        rest = blob[len(head) :]
        body = ZstdDecompressor().decompress(AESGCM(sealing).decrypt(rest[:12], rest[12:], head), LIMIT)
        size = struct.unpack_from("<I", body)[0]
        self.json = json.loads(body[4 : 4 + size])
        at = 4 + size
        self.sizes = []
        for pack in self.json["packs"]:
            self.sizes.append(struct.unpack_from(f"<{pack['frames']}I", body, at))
            at += 4 * pack["frames"]
        end = len(body) - self.json.get("difference_bytes", 0)
        self.pages, self.differences = runs(body[at:end]), runs(body[end:])

    def frame(self, pack: int, number: int) -> bytes:
        said, sizes = self.json["packs"][pack], self.sizes[pack]
        secret = aes_key_unwrap(self.wrapping, bytes.fromhex(said["secret"]))
        with (self.store / said["key"]).open("rb") as file:
            file.seek(sum(sizes[:number]))
            content: bytes = AESGCM(secret).decrypt(number.to_bytes(12, "big"), file.read(sizes[number]), None)
            return content

    def page(self, pack: int, number: int, behind: int = 0) -> bytes:
        where = pack - 1, behind + number // A_FRAME
        if where not in self.opened:
            self.opened[where] = ZstdDecompressor().decompress(self.frame(*where), LIMIT)
        start = number % A_FRAME * PAGE
        return self.opened[where][start : start + PAGE]

    def paged_file(self, first: int, count: int) -> bytes:
        done = []
        for n in range(first, first + count):
            pack, number = self.pages[n]
            content = self.page(pack, number) if pack else bytes(PAGE)
            pack, number = self.differences[n] if self.differences else (0, 0)
            if pack:
                frames_of_pages = -(-self.json["packs"][pack - 1]["pages"] // A_FRAME)
                change = self.page(pack, number, frames_of_pages)
                content = bytes(a ^ b for a, b in zip(content, change, strict=True))
            done.append(content)
        return b"".join(done)

    def small_file(self, where: dict[str, Any]) -> bytes:
        dictionary = None
        if where["dictionary"] is not None:
            raw = ZstdDecompressor().decompress(self.frame(*where["dictionary"]), LIMIT)
            assert len(raw) == where["dictionary_bytes"]
            dictionary = ZstdCompressionDict(raw, dict_type=DICT_TYPE_RAWCONTENT)
        return ZstdDecompressor(dict_data=dictionary).decompress(self.frame(*where["content"]), LIMIT)

    def files(self) -> dict[str, bytes]:
        """The image."""
        image, first = {}, 0
        for file in self.json["files"]:
            if "whole" in file:
                image[file["name"]] = self.small_file(file["whole"])
            else:
                count = -(-file["size_bytes"] // PAGE)
                image[file["name"]] = self.paged_file(first, count)[: file["size_bytes"]]
                first += count
        return image
