"""The interpreter: the process that runs the user's code, one instruction at a time."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import json
import os
import resource
import signal
import sys
import time
import types
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from . import channel, completing, offline, randomness, results
from .cell import Cell
from .connection import Connection
from .eventloop import AgentLoop, count_threads, let_loops_nest
from .repair import Repairs
from .shell import make_shell
from .stdin import Stdin
from .streams import Output, Stream

SOCKET_FD = 3
Step = TypeVar("Step")


class Interpreter:
    """Reads instructions from the supervisor, runs them on the user's namespace, and answers."""

    def __init__(self, address: str, preload: list[str]) -> None:
        self._pid = os.getpid()
        self._connection = Connection(SOCKET_FD, address)
        self._output = Output(self._connection)
        self._streams = Stream(self._output, channel.STDOUT, 1), Stream(self._output, channel.STDERR, 2)
        for name, stream in zip(("stdout", "stderr"), self._streams, strict=True):
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
        self._stdin = Stdin(self._output)
        self._arrived: deque[channel.Message] = deque()
        self._assembler = channel.Assembler(*channel.FROM_SUPERVISOR)
        self._seq = -1
        self._replaying = False
        self._user_code = False
        self._completing = False
        self._interrupts = 0
        self._skip_next = False
        self._task: asyncio.Task[Any] | None = None
        self._handlers = {signal.SIGINT: self._interrupted, signal.SIGURG: self._nudged}
        let_loops_nest()
        self._loop = AgentLoop()
        self._loop.add_own_reader(self._connection.fileno(), self._readable)
        self._watched = self._connection.fileno(), self._connection.times_made
        self._shell = make_shell(self._output)
        self._add_module()
        offline.explain(self._shell)
        randomness.watch_seeding()
        self._repairs = Repairs(self._streams)
        for name in preload:
            importlib.import_module(name)
        gc.collect()
        gc.freeze()

    def run(self) -> None:
        """Serve for ever."""
        self._set_handlers()
        self._output.send(channel.READY, 0, b"")
        while True:
            message = self._next()
            if message.type == channel.EXECUTE:
                self._execute(message.seq, message.body, replaying=bool(message.flags & channel.REPLAYING))
            elif message.type == channel.RESEED:
                self._reseed(message.body)
            elif message.type == channel.COMPLETE:
                self._complete(message)
            elif message.type == channel.REHEARSE:
                self._perform(-1, "1 + 1")
                self._output.send(channel.READY, 0, b"")
            elif message.type == channel.LIMITS:
                limit = int(message.body)
                with contextlib.suppress(ValueError, OSError):
                    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))

    def _reseed(self, seed: bytes) -> None:
        try:
            self._own_step(lambda: randomness.reseed(seed))
        except Exception as error:
            self._notice(f"Fresh randomness could not be given to every generator: {type(error).__name__}: {error}")

    def _complete(self, message: channel.Message) -> None:
        body = b""
        try:
            try:
                self._completing = True
                body = json.dumps(completing.complete(self._shell, message.body)).encode()
            finally:
                self._completing = False
        except BaseException:  # noqa: S110  # an interrupt, or whatever the user's objects do when they are looked at
            pass
        if os.getpid() != self._pid:
            os._exit(0)
        self._output.send(channel.COMPLETION, message.seq, body)

    # Waiting for an instruction.

    def _next(self) -> channel.Message:
        while not self._arrived:
            try:
                if self._loop.is_quiet():
                    self._read()
                else:
                    self._loop.run_forever()
            except KeyboardInterrupt:
                self._streams[1].write("A background task was interrupted: it kept the next instruction waiting.\n")
            except SystemExit:
                self._streams[1].write("A background task tried to exit; only that task ended.\n")
            except Exception as error:
                mended = self._repairs.mend()
                if mended:
                    self._notice(mended)
                else:
                    self._new_loop(f"{type(error).__name__}: {error}")
        return self._arrived.popleft()

    def _readable(self) -> None:
        # The loop may have said so twice before it came to listen, if a task was interrupted in between.
        if self._connection.waiting():
            self._read()

    def _read(self) -> None:
        message = self._assembler.add(self._connection.receive())
        if message is not None and message.type == channel.STDIN:
            # The descriptor comes with the very next packet, which nobody else may read.
            pipe = self._connection.receive_fd() if message.flags & channel.OPEN else None
            self._stdin.give(message.body, pipe)
        elif message is not None:
            self._arrived.append(message)
            if self._loop.is_running():
                self._loop.stop()

    def _new_loop(self, reason: str) -> None:
        with contextlib.suppress(Exception):
            self._loop.abandon()
        self._loop = AgentLoop()
        self._loop.add_own_reader(self._connection.fileno(), self._readable)
        self._notice(f"The event loop was broken ({reason}) and is a new one; tasks on the old one are lost.")

    # One instruction.

    def _execute(self, seq: int, body: bytes, *, replaying: bool) -> None:
        self._seq, self._replaying = seq, replaying
        encoded, background = self._perform(seq, body.decode("utf-8", "surrogatepass"))
        self._output.send(channel.RESULT, seq, encoded, background)
        if self._repair_fds():  # it may have gone into something else
            self._output.send(channel.RESULT, seq, encoded, background)

    def _perform(self, seq: int, code: str) -> tuple[bytes, int]:
        """Run it; the body and the flags of its result."""
        self._interrupts = 0
        self._set_handlers()
        for repaired in (*self._repairs.before_instruction(), *self._stdin.begin()):
            self._notice(repaired)
        started = time.monotonic()
        fields = self._run(seq, code)
        runtime_ms = round((time.monotonic() - started) * 1000)
        if os.getpid() != self._pid:
            self._end_fork(fields)
        fields.pop("exit", None)
        fields["runtime_ms"] = runtime_ms
        encoded = self._own_step(lambda: results.encode(fields))
        background = self._own_step(self._background)
        self._output.flush_c()
        return encoded, background

    def _repair_fds(self) -> bool:
        """Make good what user code did to fds, while nobody waits for it; whether the connection was another's."""
        was_own = self._connection.is_own()
        if self._connection.repair():
            self._notice("Standard streams or fds of the machine's own were closed, and have been opened again.")
        if not self._loop.is_whole():
            self._new_loop("its fd was closed")
        elif self._watched != (self._connection.fileno(), self._connection.times_made):
            self._loop.move_own_reader(self._watched[0], self._connection.fileno(), self._readable)
        self._watched = self._connection.fileno(), self._connection.times_made
        return not was_own

    def _run(self, seq: int, code: str) -> dict[str, Any]:
        try:
            try:
                self._user_code = True
                if self._skip_next:
                    self._skip_next = False
                    raise KeyboardInterrupt
                return self._attempt(seq, code)
            except BaseException as error:
                self._user_code = False
                return self._failed(error)
            finally:
                self._user_code = False
        except BaseException as error:  # a late interrupt
            self._user_code = False
            return self._failed(error)

    def _attempt(self, seq: int, code: str) -> dict[str, Any]:
        cell = self._own_step(lambda: Cell(self._shell, code, seq))
        self._shell.events.trigger("pre_execute")
        self._loop.pretend_running(True)
        try:
            value = cell.run(self._await)
            if not cell.shows or self._output.forked:
                return {"value": None}
            return self._own_step(lambda: results.of_value(self._shell, value))
        finally:
            if not self._output.forked:
                self._shell.events.trigger("post_execute")
            self._loop.pretend_running(False)

    def _await(self, coroutine: Any) -> Any:
        loop = self._loop
        loop.pretend_running(False)
        task = self._task = loop.create_task(coroutine)
        try:
            while True:
                try:
                    return loop.run_until_complete(task)
                except asyncio.CancelledError as error:
                    if self._interrupts and task.done():
                        raise KeyboardInterrupt().with_traceback(error.__traceback__) from None
                    raise
                except KeyboardInterrupt:
                    if task.done():
                        raise
                    task.cancel()
        finally:
            self._task = None
            loop.pretend_running(True)

    def _failed(self, error: BaseException) -> dict[str, Any]:
        fields = self._own_step(lambda: results.of_error(error))
        fields["exit"] = (error.code or 0) if isinstance(error, SystemExit) else 1
        return fields

    def _own_step(self, step: Callable[[], Step]) -> Step:
        """Do something of the agent's; where user code has broken what it needs, mend that and try once more."""
        try:
            return step()
        except Exception as error:
            if isinstance(error, SyntaxError) or self._repairs.is_users_own(error):
                raise
            mended = self._repairs.mend()
            if not mended:
                raise
            self._notice(mended)
            return step()

    def _end_fork(self, fields: dict[str, Any]) -> None:
        """End a child that user code forked and that came back here; it must not answer."""
        code = 0
        try:
            if "error" in fields:
                code = fields["exit"] if isinstance(fields["exit"], int) else 1
                if fields["error"]["name"] != "SystemExit":
                    self._streams[1].write("\n".join(fields["error"]["traceback"]) + "\n")
            self._output.flush_c()
            self._output.flush()
        finally:
            os._exit(code & 0xFF)

    def _background(self) -> int:
        tasks = channel.TASKS if self._loop.has_tasks() else 0
        return tasks | (channel.THREADS if count_threads() > 1 else 0)

    def _notice(self, message: str) -> None:
        self._output.send(channel.NOTICE, 0, json.dumps({"code": "guest_repaired", "message": message}).encode())

    # Signals.

    def _set_handlers(self) -> None:
        for number, handler in self._handlers.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)
                self._handlers[number] = handler

    def _interrupted(self, number: int, frame: types.FrameType | None) -> None:
        if os.getpid() != self._pid:
            raise KeyboardInterrupt
        if self._completing:
            raise KeyboardInterrupt
        if not self._user_code:
            hogs = self._loop.is_running() and asyncio.current_task(self._loop) is not None
            if hogs and self._connection.waiting():
                self._skip_next = True
                raise KeyboardInterrupt
            return
        self._interrupts += 1
        if self._output.critical:
            self._output.deferred = True
            return
        task = self._task
        if task is not None and self._interrupts == 1 and asyncio.current_task(self._loop) is not task:
            self._loop.call_soon_threadsafe(task.cancel)
            return
        raise KeyboardInterrupt

    def _nudged(self, number: int, frame: types.FrameType | None) -> None:
        self._output.nudged()

    def _add_module(self) -> None:
        module = types.ModuleType("torpor", "What a machine knows about the instruction that runs.")

        def seq() -> int:
            """The number of the instruction that runs, or ran last."""
            return self._seq

        def replaying() -> bool:
            """Whether this instruction was run before and runs again, to recover the machine's state."""
            return self._replaying

        for function in (seq, replaying):
            function.__module__ = "torpor"
            setattr(module, function.__name__, function)
        sys.modules["torpor"] = module


def main(load_body: bytes) -> None:
    """Be the user's interpreter; never returns."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    payload = json.loads(load_body)
    Interpreter(payload["address"], payload.get("preload", [])).run()
