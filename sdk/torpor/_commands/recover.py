"""`torpor recover MACHINE`: ways out for a machine that is parked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from .._errors import TorporError
from ._console import Json, MachineName, client, note, single_command, size_text, write_json

app = single_command()

How = Annotated[
    str, typer.Option("--how", metavar="retry|skip|rollback|export", help="Which way out.", show_default=False)
]
Seq = Annotated[
    int | None, typer.Option("--seq", "-s", metavar="N", min=0, help="For skip: this instruction, not the one blamed.")
]
Generation = Annotated[
    int | None,
    typer.Option("--generation", "-g", metavar="N", min=0, help="For rollback: this snapshot, not the newest usable."),
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="For export: where to; by default MACHINE.tar.")
]


@app.command()
def recover(
    machine: MachineName,
    how: How,
    seq: Seq = None,
    generation: Generation = None,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Bring back a machine that could not be recovered and is parked. Its snapshots stay, whatever is tried.

    [bold]--how retry[/bold]  once more, from its newest snapshot and what it did since

    [bold]--how skip[/bold]  the same without the instruction that ends its process each time

    [bold]--how rollback[/bold]  from an older snapshot, without what it did since

    [bold]--how export[/bold]  write its log, files and variables to an archive; the machine stays parked
    """
    recover_machine(machine, how, seq=seq, generation=generation, output=output, as_json=as_json)


def recover_machine(
    machine: str,
    how: str,
    *,
    seq: int | None = None,
    generation: int | None = None,
    output: Path | None = None,
    as_json: bool = False,
) -> None:
    """Do what `torpor recover MACHINE` does."""
    if how not in ("retry", "skip", "rollback", "export"):
        raise TorporError(f"--how takes retry, skip, rollback or export, not {how!r}.")
    with client() as torpor:
        target = torpor.machine(machine, create=False)
        if how == "export":
            path = output or Path(f"{machine}.tar")
            _export_into(path, target.export, as_json=as_json)
            return
        done = target.recover(how, seq=seq, generation=generation)
    if as_json:
        write_json(done.model_dump(mode="json"))
        return
    where = "its beginning" if done.generation is None else f"generation {done.generation}"
    without = "" if done.undone is None else f", without instruction {done.undone}"
    note(f"{machine} was brought back from {where}{without}.")
    if done.left_behind:
        note(f"Left behind: instructions {', '.join(map(str, done.left_behind))}.")


def _export_into(path: Path, export: Callable[[BinaryIO], int], *, as_json: bool) -> None:
    """Write the archive beside its place first: a file of that name is replaced by a whole one only."""
    partial = path.with_name(f"{path.name}.part")
    try:
        with partial.open("wb") as file:
            size_bytes = export(file)
        partial.replace(path)
    except OSError as error:
        raise TorporError(f"{path} cannot be written: {error.strerror or error}.") from None
    finally:
        partial.unlink(missing_ok=True)
    if as_json:
        write_json({"file": str(path), "bytes": size_bytes})
    else:
        note(f"Wrote {path}, {size_text(size_bytes)}: machine.json, log.jsonl, and state.tar if any snapshot starts.")
