"""A TCP proxy that cuts a connection after so many bytes of it, and knows nothing of what they mean.

`fault_proxy` is its neighbour for S3, which reads requests and answers whole and fails by their names; here what is
tested is a client whose answer stops in the middle of a header, a number, a character, so every byte passes by itself.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final, Literal

_PIECE_BYTES: Final = 1 << 16
_RESET: Final = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class CutAfter:
    """Let so many bytes of one direction through, on the next connections that carry any, and then end them."""

    byte_count: int
    direction: Literal["request", "answer"] = "answer"
    reset: bool = False
    """Whether the client gets a reset instead of an end."""
    times: int = 1


class CuttingProxy:
    """Passes bytes on to `address`, and cuts when `cut` says so; keep-alive connections count from when it was set."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.url = ""
        self.cuts_made = 0
        self.answered_bytes = 0
        """What came from the server since `cut` was set."""
        self._address = address
        self._cut: CutAfter | None = None
        self._left = 0

    @property
    def cut(self) -> CutAfter | None:
        """What is still to be done."""
        return self._cut

    def arm(self, cut: CutAfter | None) -> None:
        """Do this to the bytes that come from now on."""
        self.cuts_made = self.answered_bytes = 0
        self._left = cut.byte_count if cut else 0
        self._cut = cut

    async def serve(self, ready: threading.Event, over: asyncio.Event) -> None:
        """Run until `over` is set."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()
        await over.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.CancelledError):
            onward_reader, onward_writer = await asyncio.open_connection(*self._address)
            ways = [
                asyncio.create_task(self._pass("request", reader, onward_writer)),
                asyncio.create_task(self._pass("answer", onward_reader, writer)),
            ]
            try:
                done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                if any(way.exception() is None and way.result() for way in done):
                    client: socket.socket = writer.get_extra_info("socket")
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            finally:
                for way in ways:
                    way.cancel()
                onward_writer.close()
        writer.close()

    async def _pass(self, direction: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Until an end or a cut; whether the client is to be reset."""
        while piece := await reader.read(_PIECE_BYTES):
            if direction == "answer":
                self.answered_bytes += len(piece)
            cut = self._cut
            if cut is not None and cut.direction == direction:
                if len(piece) > self._left:
                    writer.write(piece[: self._left])
                    await writer.drain()
                    self.cuts_made += 1
                    self._left = cut.byte_count
                    if self.cuts_made >= cut.times:
                        self._cut = None
                    return cut.reset
                self._left -= len(piece)
            writer.write(piece)
            await writer.drain()
        return False


@contextmanager
def cutting_proxy(url: str) -> Iterator[CuttingProxy]:
    """A proxy before the server at `url`, in a thread of its own while this is entered."""
    host, _, port = url.removeprefix("http://").partition(":")
    proxy = CuttingProxy((host, int(port)))
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    over = asyncio.Event()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(proxy.serve(ready, over))

    thread = threading.Thread(target=run, name="cutting proxy")
    thread.start()
    ready.wait()
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
