"""`torpor repl`: talk to a machine line by line."""

from __future__ import annotations

import math
import sys
from typing import Annotated

import typer

from .._client import Client
from .._errors import TorporError
from .._retry import RetryPolicy
from ._console import TimeoutOption, note, single_command
from ._machine_names import machine_names

PATIENCE_SECONDS = 3600.0
"""How long a server that went away is waited for: somebody sits there who can leave."""
PATIENCE_ASKING_SECONDS = 5.0

app = single_command()


@app.command()
def repl(
    machine: Annotated[
        str | None,
        typer.Argument(
            metavar="MACHINE",
            help="The machine's name; without one, a new machine.",
            envvar="TORPOR_MACHINE",
            autocompletion=machine_names,
        ),
    ] = None,
    timeout: TimeoutOption = math.inf,
) -> None:
    """Talk to a machine line by line, as to Python itself.

    [bold]torpor repl[/bold]  to a new machine

    [bold]torpor repl analysis[/bold]  to that one, with all that it knows; Up brings what was run before

    Enter runs what is complete; after an indented block an empty line does. Esc then Enter always adds a line. Tab
    completes. `!ls`, `%timeit` and `name?` work as in a notebook, and `:help` lists the commands of the prompt.

    Ctrl-C ends what runs, Ctrl-D leaves: the machine lives on, and so does what it runs.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise TorporError("There is no terminal to talk on.", hint="To run code from a pipe: torpor run -m MACHINE")
    from .._repl.conversation import Clients, Conversation  # noqa: PLC0415 - slow to import, and only needed here

    patient, quick = RetryPolicy(total_seconds=PATIENCE_SECONDS), RetryPolicy(total_seconds=PATIENCE_ASKING_SECONDS)
    with Client(retry=patient) as running, Client(retry=quick) as asking:
        target = asking.machine(machine, create=False) if machine else asking.new_machine()
        if machine is not None:
            target.detail()
        note(f"Machine {target.name} at {asking.url}. Ctrl-C ends what runs, Ctrl-D leaves, :help tells more.")
        conversation = Conversation(Clients(running, asking), target.name, timeout)
        conversation.go_on()
    note(f"The machine lives on. To come back: torpor repl {conversation.machine_name}")
