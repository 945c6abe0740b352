"""`torpor undo`: take the last rollback back."""

from __future__ import annotations

from .._errors import TorporError
from ._console import Json, MachineName, client, single_command, write_json
from .rollback import tell

app = single_command()


@app.command()
def undo(machine: MachineName, as_json: Json = False) -> None:
    """Take the last rollback of a machine back: it is again what it was before.

    [bold]torpor undo analysis[/bold]

    What was done since the rollback is left behind instead; undo once more to have that back.
    """
    with client() as torpor:
        target = torpor.machine(machine, create=False)
        undone = target.detail().undo
        if undone is None or undone.generation is None:
            raise TorporError(
                f"{machine} has no rollback to take back.",
                hint=f"To go back to an earlier state: torpor rollback {machine} --seq N; see `torpor log {machine}`.",
            )
        done = target.rollback(generation=undone.generation)
    if as_json:
        write_json(done.model_dump(mode="json"))
    else:
        tell(machine, done)
