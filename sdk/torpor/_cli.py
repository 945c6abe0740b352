"""The command `torpor`: loads commands from the entry points in the group `torpor.commands`, only those it needs.

Each entry point is a Typer app. One with a single command becomes `torpor NAME`, any other `torpor NAME COMMAND`.
"""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, entry_points, version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from ._errors import TorporError

GROUP = "torpor.commands"
SDK = "torpor"
TROUBLE = 3
"""Exit status when Torpor could not do it; 1 is for an error of the code that ran, 2 for a wrong command line."""

_ORDER = (
    "new",
    "run",
    "repl",
    "exec",
    "sh",
    "ls",
    "show",
    "log",
    "snapshots",
    "fork",
    "rollback",
    "undo",
    "pin",
    "unpin",
    "interrupt",
    "set",
    "tag",
    "sleep",
    "rm",
    "whoami",
    "recover",
    "debug",
    "serve",
    "doctor",
    "runtime",
)


def installed() -> dict[str, EntryPoint]:
    """The commands of all installed distributions, not loaded yet. Another's command goes before one of the SDK's."""
    return {entry.name: entry for entry in sorted(entry_points(group=GROUP), key=_is_from_here, reverse=True)}


def _is_from_here(entry: EntryPoint) -> bool:
    return entry.dist is not None and entry.dist.name == SDK


class Commands(TyperGroup):
    """The commands that are installed. A broken one says why, and leaves the others alone."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of all commands, the daily ones first."""
        names = installed().keys()
        return [name for name in _ORDER if name in names] + sorted(names - set(_ORDER))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Load one command; None if there is none of this name."""
        found = installed().get(cmd_name)
        return None if found is None else _load(found)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; what Torpor says is one sentence and a hint, never a traceback."""
        try:
            return super().invoke(ctx)
        except TorporError as error:
            explain(error)
            raise typer.Exit(TROUBLE) from None


def _load(entry: EntryPoint) -> Any:
    try:
        loaded = entry.load()
        command = get_command(loaded)
    except Exception as error:
        command = get_command(_broken(entry, error))
    command.name = entry.name
    return command


def _broken(entry: EntryPoint, error: Exception) -> typer.Typer:
    reason = f"{type(error).__name__}: {error}"
    app = typer.Typer(add_completion=False, rich_markup_mode=None)

    @app.command(
        help=f"(cannot be loaded: {reason})",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )
    def broken() -> None:
        raise TorporError(
            f"The command `{entry.name}` cannot be loaded: {reason}",
            hint=f"It comes from {entry.value} of the distribution {entry.dist.name if entry.dist else 'unknown'}.",
        )

    return app


def explain(error: TorporError) -> None:
    """Write an error to standard error: its sentence, then what to do."""
    typer.echo(f"torpor: {error.message}", err=True)
    if error.hint:
        typer.echo(f"        {error.hint}", err=True)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"torpor {version('torpor')}")
        raise typer.Exit


app = typer.Typer(
    cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich"
)


@app.callback()
def torpor(
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Python machines that are always there.

    A machine keeps its variables, files and threads for ever. Nobody starts or stops it:

    [bold]torpor new[/bold]  prints the name of a new machine, say aB3dE6gH9jK2mN5p

    [bold]torpor run -m aB3dE6gH9jK2mN5p -c 'a = 3'[/bold]

    [bold]torpor run -m aB3dE6gH9jK2mN5p -c 'a + 5'[/bold]  prints 8, now or in two years

    The server and the key are those in TORPOR_URL and TORPOR_API_KEY, or those that `torpor serve` saved.
    """


def main() -> None:
    """The console script."""
    sys.exit(app())
