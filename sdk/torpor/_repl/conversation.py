"""Reading, running and showing, until the user leaves."""

from __future__ import annotations

from dataclasses import dataclass

from .._cli import explain
from .._client import Client
from .._commands._console import note
from .._commands._execution import watch
from .._commands._own_input import own_input
from .._errors import MachineNotFound, TorporError
from .._machine import Machine
from .._terminal.pictures import for_terminal
from .._terminal.screen import Screen
from .commands import COMMANDS, LEAVING, Leave, Use, run_command
from .completer import MachineCompleter
from .history import MachineHistory, history_file
from .session import make_prompt


@dataclass(frozen=True)
class Clients:
    """The ways to the server."""

    running: Client
    """For code: it waits for a server that went away, since somebody sits there who can leave."""
    asking: Client
    """For all else: nobody waits long for a completion."""


class Conversation:
    """One machine at a time, with its history and its completions."""

    def __init__(self, clients: Clients, machine_name: str, timeout_seconds: float) -> None:
        self._clients = clients
        self._timeout_seconds = timeout_seconds
        self._turn_to(machine_name)

    @property
    def machine_name(self) -> str:
        """The machine that is talked to."""
        return self._machine.name

    def go_on(self) -> None:
        """Until the user leaves. Raises `MachineNotFound` when somebody has deleted the machine."""
        while self._go_one_step():
            pass

    def _turn_to(self, name: str) -> None:
        self._machine = self._clients.running.machine(name, create=False)
        self._pictures = for_terminal(name)
        self._asked: Machine = self._clients.asking.machine(name, create=False)
        self._history = MachineHistory(self._asked, history_file())
        self._prompt = make_prompt(self._history.loading, MachineCompleter(self._asked, list(COMMANDS)))

    def _go_one_step(self) -> bool:
        try:
            code = self._prompt().rstrip()
            if code and code not in LEAVING:
                self._do(code)
        except KeyboardInterrupt:
            return True
        except (EOFError, Leave):
            return False
        return code not in LEAVING

    def _do(self, code: str) -> None:
        try:
            if code.startswith(":"):
                run_command(self._asked, code)
            else:
                self._run(code)
        except Use as other:
            self._use(other.name)
        except MachineNotFound:
            raise
        except TorporError as error:
            explain(error)

    def _use(self, name: str) -> None:
        try:
            self._clients.asking.machine(name, create=False).detail()
        except TorporError as error:
            explain(error)
        else:
            self._turn_to(name)
            note(f"Machine {name}.")

    def _run(self, code: str) -> None:
        screen = Screen(self._machine.name, shown_before=self._pictures)
        own = own_input()
        stream = self._machine.stream(
            code, timeout_seconds=self._timeout_seconds, queue=True, stdin_open=own is not None
        )
        try:
            result, _ = watch(self._machine, stream, screen, source=own)
        except KeyboardInterrupt:
            seq = "" if stream.seq is None else f" {stream.seq}"
            screen.remark(f"[it runs on; `:interrupt` ends it, `:output{seq}` shows what it says]")
        else:
            self._history.ran(result.seq)
        finally:
            screen.end_line()
