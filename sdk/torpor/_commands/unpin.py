"""`torpor unpin`: let a snapshot go like any other."""

from __future__ import annotations

from ._console import GenerationArgument, Json, MachineName, client, done, single_command

app = single_command()


@app.command()
def unpin(machine: MachineName, generation: GenerationArgument, as_json: Json = False) -> None:
    """Keep a pinned snapshot only as long as any other: the machine's next save may let it go.

    [bold]torpor unpin analysis 7[/bold]  generation 7, see `torpor snapshots`
    """
    with client() as torpor:
        torpor.machine(machine, create=False).unpin(generation)
    done(
        machine,
        f"Generation {generation} of {machine} is kept only as long as any other.",
        as_json=as_json,
        generation=generation,
        pinned=False,
    )
