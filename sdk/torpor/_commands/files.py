"""`torpor files`: what is in a folder of a machine."""

from __future__ import annotations

import stat
from typing import Annotated

import typer

from .._errors import NotAFolder
from ._console import Json, MachineName, client, single_command, size_text, time_text, write_json
from ._console import write_table as table

app = single_command()

_TYPES = {
    "folder": stat.S_IFDIR,
    "link": stat.S_IFLNK,
    "fifo": stat.S_IFIFO,
    "socket": stat.S_IFSOCK,
    "device": stat.S_IFCHR,
}


@app.command()
def files(
    machine: MachineName,
    path: Annotated[str, typer.Argument(metavar="PATH", help="A folder; by default its home.")] = "",
    show_all: Annotated[bool, typer.Option("--all", "-a", help="Hidden ones too.")] = False,
    as_json: Json = False,
) -> None:
    """List files in a machine.

    [bold]torpor files analysis data[/bold]

    [bold]torpor cp[/bold]  copies them.
    """
    with client() as torpor:
        found = torpor.machine(machine, create=False).files
        try:
            listed = found.list(path)
        except NotAFolder:
            listed = [found.info(path)]
    if not show_all:
        listed = [file for file in listed if not file.name.startswith(".")]
    if as_json:
        write_json([file.model_dump(mode="json", exclude={"sha256", "tag"}) for file in listed])
        return
    table(
        ("NAME", "SIZE", "MODE", "CHANGED"),
        (
            (
                file.name + ("/" if file.kind == "folder" else f" -> {file.target}" if file.target else ""),
                "" if file.kind == "folder" else size_text(file.size),
                stat.filemode(_TYPES.get(file.kind, stat.S_IFREG) | file.mode),
                time_text(file.modified),
            )
            for file in listed
        ),
    )
