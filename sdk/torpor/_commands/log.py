"""`torpor log`: what was run on a machine."""

from __future__ import annotations

from typing import Annotated

import typer

from .._machine import Machine
from .._models import Instruction
from .._terminal.sink import sinks
from ._console import Json, MachineName, client, note, single_command, time_text, write_json, write_table
from .output import show_output

app = single_command()


@app.command()
def log(
    machine: MachineName,
    seq: Annotated[
        int | None, typer.Argument(metavar="SEQ", help="Show this instruction, with its output.", min=0)
    ] = None,
    count: Annotated[int, typer.Option("-n", "--count", help="Show so many of the newest.", min=1)] = 20,
    as_json: Json = False,
) -> None:
    """Show what was run on a machine by anyone, the newest last; or one instruction with all of its output.

    [bold]torpor log analysis -n 100[/bold]  the hundred newest

    [bold]torpor log analysis 12[/bold]  the whole code of instruction 12, and what it printed

    The number in front of each is what `torpor output`, `fork --seq` and `rollback --seq` take.
    """
    with client() as torpor:
        target = torpor.machine(machine, create=False)
        if seq is None:
            show_log(target, count=count, as_json=as_json)
            return
        instruction = target.instruction(seq)
        if as_json:
            write_json(instruction.model_dump(mode="json"))
            return
        out, _ = sinks()
        out.foreign("".join(f">>> {line}\n" for line in instruction.code.splitlines()))
        show_output(target, seq)


def show_log(machine: Machine, *, count: int, as_json: bool = False) -> None:
    """Write the newest instructions."""
    instructions = list(machine.history(limit=count))[::-1]
    if as_json:
        write_json([instruction.model_dump(mode="json", exclude={"events"}) for instruction in instructions])
        return
    write_table(
        ("SEQ", "WHEN", "CODE", "RESULT"),
        (
            (str(instruction.seq), time_text(instruction.accepted_at), _short(instruction.code), _outcome(instruction))
            for instruction in instructions
        ),
    )
    lost_before = machine.detail().lost_before if len(instructions) < count else None
    if lost_before is not None:
        note(f"Instructions before {lost_before} may be missing: the database was lost and rebuilt from the store.")


def _outcome(instruction: Instruction) -> str:
    result = instruction.result
    if instruction.expired:
        return "(not kept any more)"
    if result is None:
        return instruction.state or ""
    outcome = _short(str(result["error"]) if result.get("error") is not None else str(result.get("value") or ""))
    return f"{outcome} (rolled back)".lstrip() if instruction.rolled_back else outcome


def _short(text: str) -> str:
    first, newline, _ = text.strip().partition("\n")
    return f"{first[:80]}…" if newline or len(first) > 80 else first
