"""`torpor unpin`: let a snapshot go like any other."""

from __future__ import annotations

from ._console import GenerationArgument, MachineName, client, note, single_command

app = single_command()


@app.command()
def unpin(machine: MachineName, generation: GenerationArgument) -> None:
    """Keep a pinned snapshot only as long as any other: the machine's next save may let it go."""
    with client() as torpor:
        torpor.machine(machine, create=False).unpin(generation)
    note(f"Generation {generation} of {machine} is kept only as long as any other.")
