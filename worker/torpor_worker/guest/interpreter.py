"""The interpreter: the process that runs the user's code, one instruction at a time."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
import types
from collections import deque
from typing import Any

from . import channel, results, streams
from .cell import Cell
from .eventloop import AgentLoop
from .shell import make_shell

SOCKET_FD = 3


class Interpreter:
    """Reads instructions from the supervisor, runs them on the user's namespace, and answers."""

    def __init__(self) -> None:
        self._socket = streams.own_socket(SOCKET_FD)
        self._pid = os.getpid()
        self._arrived: deque[channel.Message] = deque()
        self._assembler = channel.Assembler()
        self._running: int | None = None
        self._user_code = False
        self._task: asyncio.Task[Any] | None = None
        self.seq = -1
        self.replaying = False
        self.output = streams.Output(self._socket)
        self._loop = AgentLoop()
        self._loop.add_reader(self._socket.fileno(), self._read)
        self.shell = make_shell(self.output)

    def run(self) -> None:
        """Serve for ever."""
        signal.signal(signal.SIGINT, self._interrupted)
        self.output.send(channel.READY, 0, b"")
        while True:
            while not self._arrived:
                self._loop.run_forever()
            message = self._arrived.popleft()
            if message.type == channel.EXECUTE:
                self._execute(message)
            elif message.type == channel.LIMITS:
                pass

    def _read(self) -> None:
        packet = self._socket.recv(channel.PACKET.size + channel.PACKET_BYTES)
        if not packet:
            os._exit(0)
        message = self._assembler.add(packet)
        if message is not None:
            self._arrived.append(message)
            self._loop.stop()

    def _execute(self, message: channel.Message) -> None:
        self.seq = seq = message.seq
        self.replaying = bool(message.flags & channel.REPLAYING)
        signal.signal(signal.SIGINT, self._interrupted)
        started = time.monotonic()
        fields = self._run(seq, message.body.decode("utf-8", "surrogatepass"))
        if os.getpid() != self._pid:
            self._end_fork()
        fields["runtime_ms"] = round((time.monotonic() - started) * 1000)
        self.output.flush_c()
        flags = channel.TASKS if self._loop.has_tasks() else 0
        self.output.send(channel.RESULT, seq, json.dumps(fields).encode(), flags)

    def _run(self, seq: int, code: str) -> dict[str, Any]:
        try:
            cell = Cell(self.shell, code, seq)
            self._user_code = True
            self._loop.pretend_running(True)
            try:
                value = cell.run(self._await)
                return results.of_value(self.shell, value) if cell.shows else results.of_nothing()
            finally:
                self._user_code = False
                self._loop.pretend_running(False)
                self.shell.events.trigger("post_execute")
        except BaseException as error:
            return results.of_error(error)

    def _await(self, coroutine: Any) -> Any:
        self._loop.pretend_running(False)
        task = self._task = self._loop.create_task(coroutine)
        try:
            return self._loop.run_until_complete(task)
        except KeyboardInterrupt:
            if not task.done():
                task.cancel()
                self._loop.run_until_complete(asyncio.wait([task]))
            raise
        finally:
            self._task = None
            self._loop.pretend_running(True)

    def _interrupted(self, number: int, frame: types.FrameType | None) -> None:
        if not self._user_code or os.getpid() != self._pid:
            if os.getpid() != self._pid:
                raise KeyboardInterrupt
            return
        raise KeyboardInterrupt

    def _end_fork(self) -> None:
        try:
            self.output.flush_c()
        finally:
            os._exit(0)


def main(load_body: bytes) -> None:
    """Be the user's interpreter; never returns."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    Interpreter().run()
