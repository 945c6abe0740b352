"""`torpor pin`: keep a snapshot for ever."""

from __future__ import annotations

from ._console import GenerationArgument, Json, MachineName, client, done, single_command

app = single_command()


@app.command()
def pin(machine: MachineName, generation: GenerationArgument, as_json: Json = False) -> None:
    """Keep a snapshot of a machine until it is unpinned, or the machine deleted.

    [bold]torpor pin analysis 7[/bold]  keeps generation 7 of `torpor snapshots`
    """
    with client() as torpor:
        torpor.machine(machine, create=False).pin(generation)
    done(machine, f"Generation {generation} of {machine} is kept.", as_json=as_json, generation=generation, pinned=True)
