"""Files of a machine as its user sees them, over HTTP and restarts of the server."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Callable
from urllib.parse import quote

import httpx2
from tests.support.server import ServerProcess

PIECE_BYTES = 1 << 16
OWN = (".ipython", ".local")
"""What every home folder has."""


class Files:
    """The files of one machine."""

    def __init__(self, server: ServerProcess, machine: str) -> None:
        self._server = server
        self._path = f"/v1/machine/{machine}/files"

    def address(self, path: str) -> str:
        """Of a file."""
        return f"{self._path}/{quote(path.encode('utf-8', 'surrogateescape'), safe='')}"

    def put(self, path: str, data: bytes, **query: str) -> None:
        """Write it; when this returns it was acknowledged."""
        with self._server.client() as client:
            answer = client.put(self.address(path), content=data, params=query)
        assert answer.is_success, answer.text
        assert answer.json()["sha256"] == hashlib.sha256(data).hexdigest()

    def get(self, path: str, **query: str) -> bytes:
        """All of it."""
        with self._server.client() as client:
            answer = client.get(self.address(path), params=query)
        assert answer.is_success, answer.text
        return answer.content

    def delete(self, path: str, **query: str) -> None:
        """Remove it."""
        with self._server.client() as client:
            answer = client.delete(self.address(path), params=query)
        assert answer.is_success, answer.text

    def refused(self, method: str, path: str, content: bytes = b"", **query: str) -> str:
        """The code with which it is refused."""
        with self._server.client() as client:
            answer = client.request(method, self.address(path), content=content, params=query)
        assert not answer.is_success
        return str(answer.json()["code"])

    def names(self, path: str = "") -> list[str]:
        """What is in a folder, without what IPython and pip keep there."""
        with self._server.client() as client:
            answer = client.get(self._path, params={"path": path})
        assert answer.is_success, answer.text
        return [str(entry["name"]) for entry in answer.json()["entries"] if entry["name"] not in OWN]


def data_of(seed: int, size: int) -> bytes:
    """Bytes that nobody can guess, always the same."""
    return random.Random(seed).randbytes(size)


async def _pieces(seed: int, size: int) -> AsyncIterator[bytes]:
    for number in range(size // PIECE_BYTES):
        yield data_of(seed * 1_000_003 + number, PIECE_BYTES)


async def _told(pieces: AsyncIterator[bytes], moved: Callable[[int], None]) -> AsyncIterator[bytes]:
    async for piece in pieces:
        yield piece
        moved(len(piece))


async def up_and_down(
    client: httpx2.AsyncClient, path: str, seed: int, size: int, moved: Callable[[int], None] = lambda _: None
) -> None:
    """Stream a file in and out again, in pieces, and compare digests; `moved` is told of bytes as they go."""
    digest = hashlib.sha256()
    async for piece in _pieces(seed, size):
        digest.update(piece)
    put = await client.put(path, content=_told(_pieces(seed, size), moved))
    assert put.is_success, put.text
    assert put.json()["sha256"] == digest.hexdigest()
    again = hashlib.sha256()
    async with client.stream("GET", path) as answer:
        assert answer.is_success, await answer.aread()
        async for piece in answer.aiter_raw():
            again.update(piece)
            moved(len(piece))
            await asyncio.sleep(0)
    assert again.hexdigest() == digest.hexdigest()
