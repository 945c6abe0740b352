"""A command of a machine under the user's hands: output as it comes, keys, Ctrl-C and the window's size passed on."""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from .._command_models import CommandResult
from .._errors import CommandInputClosed, CommandNotRunning, TorporError
from .._events import Notice, Stderr, Stdout
from .._machine_commands import Commands, CommandStream
from .._terminal.shell_text import RESET, ShellText
from .._terminal.sink import sinks
from ._console import note

TIMED_OUT = 124
BY_SIGNAL = 128
"""Plus the signal's number, as shells have it."""
READ_BYTES = 64 << 10
LOOK_SECONDS = 0.1
LEAVE = b"\x1d"
"""Ctrl-]: leave a terminal, with what runs in it."""


class Left(Exception):
    """The user has left the terminal; what runs in it runs on."""


def window() -> tuple[int, int]:
    """Rows and columns of the user's terminal, whatever `COLUMNS` and `LINES` say."""
    try:
        size = os.get_terminal_size(sys.stdout.fileno())
    except OSError:
        size = shutil.get_terminal_size()
    return size.lines, size.columns


def status_of(result: CommandResult) -> int:
    """The exit status of a command that has ended, as a shell would have it."""
    if result.timed_out:
        return TIMED_OUT
    if result.signal is not None:
        number = getattr(signal, result.signal, None)
        return BY_SIGNAL + int(number) if number is not None else BY_SIGNAL
    return 1 if result.exit_code is None else result.exit_code


class Remote:
    """Follows one command, and passes on what the user does."""

    def __init__(self, commands: Commands, stream: CommandStream, *, terminal: bool, feed: bool) -> None:
        """`terminal`: the command has one, and the user's is its keyboard. `feed`: it gets our standard input."""
        self._commands = commands
        self._stream = stream
        self._terminal = terminal
        self._feed = feed or terminal
        self._over = threading.Event()
        self._left = threading.Event()
        self._pressed = 0
        self._out, self._err = sinks()
        self._shell = ShellText()

    def follow(self) -> CommandResult:
        """Follow it to its end. Raises `Left`, and `KeyboardInterrupt` at the second Ctrl-C: it runs on then."""
        feeder = threading.Thread(target=self._send, name="input", daemon=True)
        with self._keys(), self._stream:
            if self._feed:
                feeder.start()
            for event in self._stream:
                match event:
                    case Stdout(text=text) if self._terminal:
                        self._out.own(self._shell.feed(text))
                    case Stdout(text=text):
                        self._out.foreign(text)
                    case Stderr(text=text):
                        self._err.foreign(text)
                    case Notice(code=code, message=message):
                        note(f"[{code}] {message}")
                    case _:
                        pass
            return self._stream.result()

    @contextmanager
    def _keys(self) -> Iterator[None]:
        """While this is entered, keys, Ctrl-C and changes of the window are the command's."""
        before = {signal.SIGINT: signal.signal(signal.SIGINT, self._press)}
        mode = None
        if self._terminal:
            before[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, self._resized)
            mode = termios.tcgetattr(sys.stdin.fileno())
            tty.setraw(sys.stdin.fileno(), termios.TCSADRAIN)  # what was typed already is for it too
        try:
            yield
        finally:
            self._over.set()
            if mode is not None:
                self._out.own(RESET)
                termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, mode)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _press(self, _number: int, _frame: FrameType | None) -> None:
        if self._left.is_set():
            raise Left
        self._pressed += 1
        if self._pressed > 1:
            raise KeyboardInterrupt
        self._elsewhere(self._interrupt)

    def _interrupt(self) -> None:
        seq = self._seq()
        if seq is not None:
            self._commands.get(seq).signal("INT")

    def _resized(self, _number: int, _frame: FrameType | None) -> None:
        self._elsewhere(self._resize)

    def _resize(self) -> None:
        seq = self._seq()
        if seq is not None:
            self._commands.get(seq).resize(*window())

    def _elsewhere(self, work: Callable[[], None]) -> None:
        """Do it in a thread: a handler of a signal must not wait for the network."""

        def do() -> None:
            try:
                work()
            except (CommandNotRunning, RuntimeError):
                return  # it has ended meanwhile
            except TorporError as error:
                note(f"\ntorpor: {error.message}")

        threading.Thread(target=do, name="signal", daemon=True).start()

    def _seq(self) -> int | None:
        """The command's number, as soon as it is known; None if it is over before that."""
        while self._stream.seq is None:
            if self._over.wait(LOOK_SECONDS / 10):
                return None
        return self._stream.seq

    def _send(self) -> None:
        """Pass standard input on until it ends, or the command does."""
        seq = self._seq()
        if seq is None:
            return
        command = self._commands.get(seq)
        source = sys.stdin.fileno()
        try:
            while not self._over.is_set():
                if not select.select([source], [], [], LOOK_SECONDS)[0]:
                    continue
                data = os.read(source, READ_BYTES)
                if self._terminal and LEAVE in data:
                    self._left.set()
                    os.kill(os.getpid(), signal.SIGINT)  # out of whatever the main thread waits for
                    return
                if not data:
                    command.close_stdin()
                    return
                command.send_stdin(data)
        except (CommandNotRunning, CommandInputClosed, RuntimeError):
            return
        except TorporError as error:
            note(f"\ntorpor: {error.message}")
