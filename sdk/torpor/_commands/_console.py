"""How commands write: tables on a terminal, plain lines or JSON in a pipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Annotated, Any

import typer

from .._calls import UNSET, Unset
from .._client import Client
from .._errors import TorporError
from .._terminal.safe_text import one_line, plain
from .._terminal.sink import write
from ._machine_names import machine_names

__all__ = ["write"]

Json = Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")]
MachineName = Annotated[
    str, typer.Argument(metavar="MACHINE", help="The machine's name.", autocompletion=machine_names)
]

TimeoutOption = Annotated[
    float,
    typer.Option(
        "--timeout",
        "-t",
        metavar="SECONDS",
        help="End it after so much running time.",
        show_default="as long as the server allows",
    ),
]
"""Infinite by default: at a terminal it is a person who ends what takes too long."""
MemoryOption = Annotated[int | None, typer.Option("--memory", metavar="MB", help="Memory that it may use.", min=1)]
IdleOption = Annotated[
    str | None,
    typer.Option("--idle", metavar="SECONDS", help="After so long without work it falls asleep; `never`: stays awake."),
]
DurabilityOption = Annotated[
    str | None,
    typer.Option(
        "--durability", metavar="interval|instruction", help="`instruction`: every answer waits until it is saved."
    ),
]
RecoveryOption = Annotated[
    str | None,
    typer.Option(
        "--recovery",
        metavar="replay|rollback",
        help="What it did since its last save, when its process is lost: executed again, or left behind.",
    ),
]
ReplaySecondsOption = Annotated[
    float | None,
    typer.Option("--replay-seconds", metavar="SECONDS", help="How much running time a recovery may execute again."),
]
GenerationArgument = Annotated[int, typer.Argument(metavar="GENERATION", min=0, help="See `torpor snapshots`.")]
GenerationOption = Annotated[
    int | None, typer.Option("--generation", "-g", metavar="N", min=0, help="The state of this snapshot.")
]
SeqOption = Annotated[
    int | None, typer.Option("--seq", "-s", metavar="N", min=0, help="The state right after this instruction.")
]


def single_command() -> typer.Typer:
    """The Typer app of a module with one command."""
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


def client() -> Client:
    """A client with the user's settings."""
    return Client()


def note(text: str) -> None:
    """A remark beside the output: on standard error, so that a pipe stays clean."""
    write(f"{plain(text) if sys.stderr.isatty() else text}\n", sys.stderr)


def write_json(value: Any) -> None:
    """One JSON value on standard output."""
    write(json.dumps(value, indent=2 if sys.stdout.isatty() else None, default=str) + "\n", sys.stdout)


def done(machine: str, sentence: str, *, as_json: bool, **fields: Any) -> None:
    """What a command did that has nothing to print: a sentence beside the output, or an object with the machine."""
    if as_json:
        write_json({"machine_name": machine, **fields})
    else:
        note(sentence)


def write_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on a terminal; lines with tabs between the columns, and no heading, in a pipe."""
    if not sys.stdout.isatty():
        for row in rows:
            write("\t".join(one_line(cell) for cell in row) + "\n", sys.stdout)
        return
    from rich import box  # noqa: PLC0415 - importing Rich takes longer than most commands
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=number == 0, overflow="fold")
    for row in rows:
        table.add_row(*(Text(one_line(cell)) for cell in row))
    Console().print(table)


def tags_of(pairs: Iterable[str]) -> dict[str, str]:
    """`name=value` pairs as given on the command line."""
    tags = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise TorporError(f"The tag {pair!r} is not of the form name=value.")
        tags[name] = value
    return tags


def idle_seconds_of(text: str | None) -> float | Unset | None:
    """What `--idle` says: seconds, None for `never`, nothing if it is absent."""
    if text is None:
        return UNSET
    if text == "never":
        return None
    try:
        return float(text)
    except ValueError:
        raise TorporError(f"--idle takes a number of seconds or `never`, not {text!r}.") from None


def tags_text(tags: Mapping[str, str]) -> str:
    """Tags in one cell."""
    return " ".join(f"{name}={value}" for name, value in sorted(tags.items()))


def size_text(size_bytes: int | None) -> str:
    """A size for people."""
    if size_bytes is None:
        return ""
    size = float(size_bytes)
    for unit in ("B", "KB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def time_text(moment: datetime | None) -> str:
    """A moment for people: how long ago."""
    if moment is None:
        return ""
    seconds = max(0, int((datetime.now(timezone.utc) - moment).total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago"
