"""`torpor pin`: keep a snapshot for ever."""

from __future__ import annotations

from ._console import GenerationArgument, MachineName, client, note, single_command

app = single_command()


@app.command()
def pin(machine: MachineName, generation: GenerationArgument) -> None:
    """Keep a snapshot of a machine until it is unpinned, or the machine deleted.

    [bold]torpor pin aB3dE6gH9jK2mN5p 7[/bold]  keeps generation 7 of `torpor snapshots`
    """
    with client() as torpor:
        torpor.machine(machine, create=False).pin(generation)
    note(f"Generation {generation} of {machine} is kept.")
