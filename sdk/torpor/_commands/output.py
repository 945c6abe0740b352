"""`torpor output`: what an instruction printed."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from .._errors import TorporError
from .._machine import Machine
from .._result import Result
from .._terminal.screen import Screen
from ._console import Json, MachineName, client, note, single_command, write, write_json
from .run import leave_with

app = single_command()


@app.command()
def output(
    machine: MachineName,
    seq: Annotated[
        int | None, typer.Argument(metavar="SEQ", help="The instruction; by default the last.", min=0)
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="If it still runs, go on until it has finished.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print what an instruction printed, and what came of it: as often as you like, while it runs and ever after.

    [bold]torpor output analysis[/bold]  of the last instruction, whoever ran it

    [bold]torpor output analysis 12 --follow[/bold]  of instruction 12, until it has finished

    [bold]torpor output analysis 12 2> errors.txt[/bold]  standard error apart, as `torpor run` writes it

    With --json it is one object; with --follow --json one event a line. With --follow the exit status is the code's,
    and Ctrl-C ends the reading, not the code: that does `torpor interrupt`.
    """
    with client() as torpor:
        target = torpor.machine(machine, create=False)
        if as_json and follow:
            _write_events(target, _chosen(target, seq))
        elif as_json:
            write_json(target.instruction(_chosen(target, seq)).model_dump(mode="json"))
        else:
            result = show_output(target, seq, follow=follow)
            if follow and result is not None:
                leave_with(result)


def show_output(machine: Machine, seq: int | None, *, follow: bool = False) -> Result | None:
    """Write what an instruction (None: the last) says, and its result, which is returned, if it has finished."""
    seq = _chosen(machine, seq)
    screen = Screen(machine.name)
    screen.begin(seq)
    if not follow and (instruction := machine.instruction(seq)).result is None and not instruction.expired:
        for event in instruction.events or ():
            screen.show(event)
        screen.end_line()
        note(f"[instruction {seq} is {instruction.state}; to read on: torpor output {machine.name} {seq} --follow]")
        return None
    with machine.attach(seq) as stream:
        for event in stream:
            screen.show(event)
        result = stream.result()
    screen.finish(result)
    return result


def _chosen(machine: Machine, seq: int | None) -> int:
    if seq is not None:
        return seq
    last = next(machine.history(limit=1), None)
    if last is None:
        raise TorporError(f"Nothing was run on {machine.name} yet.")
    return last.seq


def _write_events(machine: Machine, seq: int) -> None:
    with machine.attach(seq) as stream:
        for event in stream:
            write(json.dumps(asdict(event), default=str) + "\n", sys.stdout)
        leave_with(stream.result())
