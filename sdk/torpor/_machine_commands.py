"""Shell commands on a machine, beside whatever else runs there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType

from . import _command_calls, _http
from ._command_models import (
    CommandAnswer,
    CommandInfo,
    CommandPage,
    CommandResult,
    CommandStarted,
    command_body,
    input_body,
    result_of_answer,
    result_of_stream,
)
from ._connection import Connection
from ._errors import CommandNotFound
from ._events import Event, Stderr, Stdout
from ._stream import StreamState


class CommandStream:
    """The events of a command while it runs. Iterate over it, then ask for its `result`.

    A cut connection, or a server that restarts, goes unnoticed. Leaving it early does not end the command.

    >>> stream = machine.commands.stream("seq 3")
    >>> for event in stream:
    ...     if isinstance(event, torpor.Stdout):
    ...         print(event.text, end="")
    1
    2
    3
    >>> stream.result().ok
    True
    """

    def __init__(self, connection: Connection, state: StreamState) -> None:
        self._connection = connection
        self._state = state
        self._events = connection.follow(state)

    @property
    def seq(self) -> int | None:
        """The command's number; None until the server has said it."""
        return self._state.seq

    def __iter__(self) -> Iterator[Event]:
        return self._events

    def result(self) -> CommandResult:
        """How it ended, after all events that nobody has read yet.

        >>> machine.commands.stream("exit 3").result().exit_code
        3
        """
        for _ in self._events:
            pass
        if (again := self._state.anew()) is not None:
            for _ in self._connection.follow(again):
                pass
            return result_of_stream(again)
        return result_of_stream(self._state)

    def close(self) -> None:
        """Leave the stream. The command runs on.

        >>> stream = machine.commands.stream("echo begun; sleep 0.1; exit 3")
        >>> next(iter(stream)).type
        'stdout'
        >>> stream.close()
        >>> machine.commands.list()[0].seq == stream.seq
        True
        """
        self._events.close()

    def __enter__(self) -> CommandStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Command:
    """A command in the background: on its machine it is known by its `seq`, here or in any other process.

    >>> command = machine.commands.start("sleep 0.1; echo done")
    >>> machine.commands.get(command.seq).wait().ok  # in another process, perhaps
    True
    """

    def __init__(self, connection: Connection, machine_name: str, seq: int) -> None:
        self._connection = connection
        self.machine_name = machine_name
        self.seq = seq

    def send_stdin(self, data: str | bytes) -> None:
        """Give it more input. Raises `CommandNotRunning`, `CommandInputClosed`.

        >>> shell = machine.commands.start("sh")
        >>> shell.send_stdin("exit 3; ")
        >>> shell.close_stdin()
        >>> shell.wait().exit_code
        3
        """
        self._connection.send(_command_calls.feed(self.machine_name, self.seq, input_body(data, close=False)))

    def close_stdin(self) -> None:
        """End its input. Raises `CommandNotRunning`, `CommandInputClosed`.

        >>> counting = machine.commands.start(["wc", "-l"])
        >>> counting.close_stdin()
        >>> print(counting.wait().stdout)
        0
        """
        self._connection.send(_command_calls.feed(self.machine_name, self.seq, input_body("", close=True)))

    def signal(self, signal: str | int = "TERM") -> None:
        """Send it a signal, by name or number; `KILL` ends all that it has started. Raises `CommandNotRunning`.

        >>> sleeper = machine.commands.start("sleep 1000")
        >>> sleeper.signal("KILL")
        >>> sleeper.wait().signal
        'SIGKILL'
        """
        self._connection.send(_command_calls.signal(self.machine_name, self.seq, signal))

    def resize(self, rows: int, columns: int) -> None:
        r"""Give its terminal another size. Raises `CommandNotRunning`.

        >>> shell = machine.commands.start("sh", pty=(24, 80))
        >>> shell.resize(50, 120)
        >>> shell.send_stdin("stty size; exit\n")
        >>> "50 120" in shell.wait().stdout
        True
        """
        self._connection.send(_command_calls.resize(self.machine_name, self.seq, rows, columns))

    def stream(self, *, notices: bool = False) -> CommandStream:
        """What it says, from its beginning, while it says it.

        With `notices` its result carries what the machine's users were not told yet.

        >>> command = machine.commands.start("echo hello")
        >>> [event.type for event in command.stream()]
        ['stdout', 'result']
        """
        return CommandStream(self._connection, StreamState(self.machine_name, seq=self.seq, notices=notices))

    def wait(self, on_output: Callable[[Stdout | Stderr], object] | None = None) -> CommandResult:
        """Wait until it has ended; `on_output` is called with each piece of what it says.

        >>> command = machine.commands.start("exit 3")
        >>> command.wait().exit_code
        3
        """
        with self.stream() as stream:
            for event in stream:
                if on_output is not None and isinstance(event, Stdout | Stderr):
                    on_output(event)
            return stream.result()

    def info(self) -> CommandInfo:
        """How the server lists it. Raises `CommandNotFound`.

        >>> command = machine.commands.start("sleep 1000")
        >>> command.info().command
        'sleep 1000'
        >>> command.signal()
        """
        for info in Commands(self._connection, self.machine_name).list():
            if info.seq == self.seq:
                return info
        raise CommandNotFound(f"Machine {self.machine_name} has no command {self.seq}.")

    def done(self) -> bool:
        """Whether it has ended.

        >>> command = machine.commands.start("exit 3")
        >>> result = command.wait()
        >>> command.done()
        True
        """
        return self.info().state == "finished"

    def __repr__(self) -> str:
        return f"Command({self.machine_name!r}, seq={self.seq})"


class Commands:
    """The commands of a machine: `machine.commands`.

    They run beside each other and beside what `machine.run` runs, and see the same files. One in the background sleeps
    with its machine and goes on with the next wake.

    >>> machine.commands.run("seq 5 > numbers.txt").ok
    True
    >>> machine.run("sum(map(int, open('numbers.txt')))").value
    '15'
    """

    def __init__(self, connection: Connection, machine_name: str) -> None:
        self._connection = connection
        self._machine_name = machine_name

    def run(
        self,
        command: str | Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
        timeout_seconds: float | None = None,
        on_output: Callable[[Stdout | Stderr], object] | None = None,
        idempotency_key: str | None = None,
        notices: bool = True,
    ) -> CommandResult:
        r"""Execute a command and wait for its end. A failure is in the result, and is not raised.

        Args:
            command: A line for the shell, or a program and its arguments.
            cwd: The folder to begin in; the home folder by default.
            env: Variables beside those that every process of the machine has.
            stdin: What it reads; nothing by default.
            timeout_seconds: After so much running time it is ended; the server's default is 15, and `math.inf` is
                the longest that it allows.
            on_output: Called with each piece of output at the moment when it appears.
            idempotency_key: The same key does not execute it twice, and gets the first answer.
            notices: Whether its result may carry what the machine's users were not told yet; False leaves that for a
                later one, for what a program executes for itself.

        >>> machine.commands.run(["wc", "-c"], stdin="hello").stdout
        '5\n'
        """
        if on_output is not None:
            with self.stream(
                command,
                cwd=cwd,
                env=env,
                stdin=stdin,
                timeout_seconds=timeout_seconds,
                idempotency_key=idempotency_key,
                notices=notices,
            ) as stream:
                for event in stream:
                    if isinstance(event, Stdout | Stderr):
                        on_output(event)
                return stream.result()
        body = command_body(
            command,
            cwd=cwd,
            env=env,
            stdin=stdin,
            stdin_open=None,
            timeout_seconds=timeout_seconds,
            background=False,
            pty=False,
            notices=notices,
        )
        call = _command_calls.execute(self._machine_name, body, streamed=False, idempotency_key=idempotency_key)
        return result_of_answer(_http.parsed(self._connection.send(call), CommandAnswer))

    def start(
        self,
        command: str | Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
        stdin_open: bool | None = None,
        timeout_seconds: float | None = None,
        pty: bool | tuple[int, int] = False,
        idempotency_key: str | None = None,
    ) -> Command:
        """Execute a command in the background: a handle on it, at once.

        Args:
            command: A line for the shell, or a program and its arguments.
            cwd: The folder to begin in; the home folder by default.
            env: Variables beside those that every process of the machine has.
            stdin: What it reads first.
            stdin_open: Whether more input may follow, by `send_stdin`; so by default unless `stdin` is given.
            timeout_seconds: After so much running time it is ended; None: never.
            pty: Give it a terminal instead of pipes; or the rows and columns of its window.
            idempotency_key: The same key does not execute it twice, and gets a handle on the first.

        >>> sleeper = machine.commands.start("sleep 1000")
        >>> sleeper.signal("TERM")
        >>> sleeper.wait().signal
        'SIGTERM'
        """
        body = command_body(
            command,
            cwd=cwd,
            env=env,
            stdin=stdin,
            stdin_open=stdin_open,
            timeout_seconds=timeout_seconds,
            background=True,
            pty=pty,
        )
        call = _command_calls.execute(self._machine_name, body, streamed=False, idempotency_key=idempotency_key)
        started = _http.parsed(self._connection.send(call), CommandStarted)
        return Command(self._connection, self._machine_name, started.seq)

    def stream(
        self,
        command: str | Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
        stdin_open: bool | None = None,
        timeout_seconds: float | None = None,
        pty: bool | tuple[int, int] = False,
        idempotency_key: str | None = None,
        notices: bool = True,
    ) -> CommandStream:
        """Execute a command and follow what it says; it is sent when the first event is asked for.

        Args:
            command: A line for the shell, or a program and its arguments.
            cwd: The folder to begin in; the home folder by default.
            env: Variables beside those that every process of the machine has.
            stdin: What it reads first.
            stdin_open: Whether more input may follow, by `get(seq).send_stdin`; by default only with a terminal.
            timeout_seconds: After so much running time it is ended; the server's default is 15, and `math.inf` is
                the longest that it allows.
            pty: Give it a terminal instead of pipes; or the rows and columns of its window.
            idempotency_key: The same key does not execute it twice, and follows the first.
            notices: As for `run`.

        >>> stream = machine.commands.stream("seq 3")
        >>> for event in stream:
        ...     if isinstance(event, torpor.Stdout):
        ...         print(event.text, end="")
        1
        2
        3
        """
        body = command_body(
            command,
            cwd=cwd,
            env=env,
            stdin=stdin,
            stdin_open=stdin_open,
            timeout_seconds=timeout_seconds,
            background=False,
            pty=pty,
            notices=notices,
        )
        call = _command_calls.execute(self._machine_name, body, streamed=True, idempotency_key=idempotency_key)
        return CommandStream(self._connection, StreamState(self._machine_name, call=call, notices=notices))

    def get(self, seq: int) -> Command:
        """The handle of a command that was started elsewhere.

        >>> started = machine.commands.start("exit 3")
        >>> machine.commands.get(started.seq).wait().exit_code
        3
        """
        return Command(self._connection, self._machine_name, seq)

    def list(self, *, limit: int | None = None) -> list[CommandInfo]:
        """Those that run or wait, all of them, and then the others, newest first, at most `limit` of these.

        >>> for line in ("true", "false"):
        ...     result = machine.commands.run(line)
        >>> [(command.command, command.exit_code) for command in machine.commands.list()]
        [('false', 1), ('true', 0)]
        """
        found: list[CommandInfo] = []
        cursor: str | None = None
        left = limit
        while True:
            call = _command_calls.commands(self._machine_name, 100 if left is None else max(1, min(left, 100)), cursor)
            page = _http.parsed(self._connection.send(call), CommandPage)
            found += page.commands
            cursor = page.next_cursor
            if left is not None:
                left -= sum(info.state == "finished" for info in page.commands)
            if cursor is None or (left is not None and left <= 0):
                return found
