"""Commands of the conversation itself: lines that begin with a colon, which no Python does."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass

from .._commands import log, output, rollback, show, snapshots
from .._commands._console import note, write_table
from .._errors import TorporError
from .._machine import Machine

LEAVING = frozenset({"exit", "quit", "exit()", "quit()"})
"""Also leaves, as in Python's own prompt; the machine would only raise SystemExit."""


class Leave(Exception):
    """The user wants to leave."""


class Use(Exception):
    """The user wants to talk to another machine."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@dataclass(frozen=True)
class Command:
    """One of them: what it takes, what it does, and doing it."""

    takes: str
    does: str
    run: Callable[[Machine, list[str]], object]


def run_command(machine: Machine, line: str) -> None:
    """Do what a line says. Raises `Leave`, `Use`, and `TorporError` with a sentence."""
    try:
        name, *arguments = shlex.split(line.strip())
    except ValueError as error:
        raise TorporError(f"{line} cannot be read: {error}.") from None
    matches = [known for known in COMMANDS if known == name] or [known for known in COMMANDS if known.startswith(name)]
    if len(matches) != 1:
        raise TorporError(f"There is no command {name}.", hint="`:help` lists them. Code needs no colon before it.")
    command = COMMANDS[matches[0]]
    most = len(command.takes.split())
    if len(arguments) > most:
        raise TorporError(f"{matches[0]} takes {command.takes or 'nothing'}.")
    command.run(machine, arguments)


def _help(_machine: Machine, _arguments: list[str]) -> None:
    write_table(
        ("COMMAND", "DOES"),
        [(f"{name} {command.takes}".strip(), command.does) for name, command in COMMANDS.items()]
        + [(key, does) for key, does in _KEYS],
    )


def _log(machine: Machine, arguments: list[str]) -> None:
    log.show_log(machine, count=_number(arguments, "how many") or 20)


def _output(machine: Machine, arguments: list[str]) -> None:
    output.show_output(machine, _number(arguments, "an instruction"))


def _fork(machine: Machine, arguments: list[str]) -> None:
    forks = machine.fork(seq=_number(arguments, "an instruction"))
    if forks.lacks:
        note(f"It is busy: the fork lacks instructions {', '.join(map(str, forks.lacks))}.")
    note(f"{forks[0].name} goes on from here, beside this one. To talk to it: `:use {forks[0].name}`.")


def _rollback(machine: Machine, arguments: list[str]) -> None:
    seq = _number(arguments, "an instruction")
    if seq is None:
        raise TorporError("Where to?", hint="`:rollback 12` goes to when instruction 12 had just finished; see `:log`.")
    rollback.tell(machine.name, machine.rollback(seq=seq), undo="`:undo`")


def _undo(machine: Machine, _arguments: list[str]) -> None:
    undone = machine.detail().undo
    if undone is None or undone.generation is None:
        raise TorporError("There is no rollback to take back.")
    rollback.tell(machine.name, machine.rollback(generation=undone.generation), undo="`:undo`")


def _interrupt(machine: Machine, _arguments: list[str]) -> None:
    note("It is interrupted." if machine.interrupt() else "It runs nothing.")


def _sleep(machine: Machine, _arguments: list[str]) -> None:
    machine.sleep()
    note("It is asleep; whatever you run next wakes it.")


def _sync(machine: Machine, _arguments: list[str]) -> None:
    machine.sync()
    note("All of it is stored.")


def _use(_machine: Machine, arguments: list[str]) -> None:
    if not arguments:
        raise TorporError("Which machine?", hint="`torpor ls` lists them.")
    raise Use(arguments[0])


def _quit(_machine: Machine, _arguments: list[str]) -> None:
    raise Leave


def _number(arguments: list[str], what: str) -> int | None:
    if not arguments:
        return None
    if not arguments[0].isdecimal():
        raise TorporError(f"{arguments[0]!r} is no number of {what}.")
    return int(arguments[0])


COMMANDS = {
    ":help": Command("", "this", _help),
    ":log": Command("[COUNT]", "what was run on it, by anyone", _log),
    ":output": Command("[SEQ]", "what an instruction printed, by default the last", _output),
    ":show": Command("", "its state, settings and sizes", lambda machine, _: show.show_machine(machine)),
    ":snapshots": Command("", "its saved states", lambda machine, _: snapshots.show_snapshots(machine)),
    ":fork": Command("[SEQ]", "another machine that goes on from here, or from after an instruction", _fork),
    ":rollback": Command("SEQ", "go back to when this instruction had just finished", _rollback),
    ":undo": Command("", "take the last rollback back", _undo),
    ":use": Command("MACHINE", "talk to another machine", _use),
    ":interrupt": Command("", "end what runs on it", _interrupt),
    ":sleep": Command("", "put it to sleep now; never needed", _sleep),
    ":sync": Command("", "store all of it now; never needed", _sync),
    ":quit": Command("", "leave; the machine lives on", _quit),
}

_KEYS = (
    ("Enter", "runs a whole cell, else begins a line; after an indented block an empty line runs it"),
    ("Esc Enter", "begins a line, whatever is there"),
    ("Tab", "completes, by what the machine knows"),
    ("Ctrl-R", "searches what was run before"),
    ("Ctrl-C", "clears the line; while code runs, interrupts it"),
    ("Ctrl-D", "leaves; the machine lives on; while code asks, ends its input"),
    ("!ls, %timeit, x?", "shell commands, magics and help, as in a notebook"),
)
