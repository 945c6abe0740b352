"""`torpor log`: what was run on a machine."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from .._models import Instruction
from ._console import Json, MachineName, client, single_command, time_text, write, write_json, write_table
from ._execution import Screen

app = single_command()


@app.command()
def log(
    machine: MachineName,
    seq: Annotated[int | None, typer.Argument(metavar="[SEQ]", help="Show this instruction, with its output.")] = None,
    count: Annotated[int, typer.Option("-n", "--count", help="Show so many of the newest.", min=1)] = 20,
    as_json: Json = False,
) -> None:
    """Show what was run on a machine, the newest last; or one instruction with all of its output."""
    with client() as torpor:
        target = torpor.machine(machine, create=False)
        if seq is not None:
            instruction = target.instruction(seq)
            if as_json:
                write_json(instruction.model_dump(mode="json"))
                return
            write("".join(f">>> {line}\n" for line in instruction.code.splitlines()), sys.stdout)
            screen = Screen()
            stream = target.attach(seq)
            for event in stream:
                screen.show(event)
            screen.finish(stream.result())
            return
        instructions = list(target.history(limit=count))[::-1]
        lost_before = target.detail().lost_before if len(instructions) < count else None
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
    if lost_before is not None:
        told = f"Instructions before {lost_before} may be missing: the database was lost and rebuilt from the store."
        typer.echo(told, err=True)


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
