"""`torpor cp`: copy files and folders into a machine, and out of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from .._errors import FileNotFound, NotAFolder, TorporError
from .._machine_files import Files
from .._transfer import Progress
from ._console import Json, client, done, single_command

app = single_command()


@app.command()
def cp(
    source: Annotated[str, typer.Argument(metavar="FROM", help="A path, or MACHINE:PATH.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="The other of the two.")],
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="A folder with all that is in it.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    as_json: Json = False,
) -> None:
    """Copy files into a machine, and out of it.

    [bold]torpor cp data.csv analysis:[/bold]  into its home folder

    [bold]torpor cp analysis:plots/one.png .[/bold]  and back

    [bold]torpor cp -r src analysis:/tmp/src[/bold]  a folder

    Paths in a machine begin in its home folder. What was copied is compared by its digest; what broke on the way goes
    on where it was. A local path with a colon in it begins with `./`.
    """
    inward, outward = _split(target), _split(source)
    if (inward is None) == (outward is None):
        raise TorporError(
            "Exactly one of the two must be in a machine.", hint="torpor cp FILE MACHINE:PATH, or the other way round."
        )
    with client() as torpor:
        if inward is not None:
            name, path = inward
            files = torpor.machine(name, create=False).files
            local = Path(source)
            _check(local.is_dir(), source, recursive=recursive, exists=local.exists())
            path = _inside(files, path, local.resolve().name)
            with _progress(local.name, quiet=quiet or as_json) as progress:
                files.upload(local, path, progress=progress)
            done(name, f"Copied to {name}:{path}.", as_json=as_json, path=path)
        elif outward is not None:
            name, path = outward
            files = torpor.machine(name, create=False).files
            found = files.info(path)
            _check(found.kind == "folder", source, recursive=recursive)
            into = Path(target)
            if into.is_dir() and found.name not in ("", ".", ".."):
                into /= found.name
            with _progress(found.name, quiet=quiet or as_json) as progress:
                files.download(path, into, progress=progress)
            done(name, f"Copied to {into}.", as_json=as_json, path=str(into))


def _split(text: str) -> tuple[str, str] | None:
    """Machine and path, if it is in one."""
    machine, colon, path = text.partition(":")
    return (machine, path) if colon and machine and "/" not in machine and machine != "." else None


def _check(is_folder: bool, path: str, *, recursive: bool, exists: bool = True) -> None:
    if not exists:
        raise TorporError(f"There is no {path}.")
    if is_folder and not recursive:
        raise TorporError(f"{path} is a folder.", hint="Copy it with all that is in it: torpor cp -r …")


def _inside(files: Files, path: str, name: str) -> str:
    """Where it goes: below a folder that is there, under its own name, as `cp` has it."""
    if not path or path.endswith("/"):
        return path + name
    try:
        is_folder = files.info(path).kind == "folder"
    except (FileNotFound, NotAFolder):
        return path
    return f"{path}/{name}" if is_folder else path


@contextmanager
def _progress(name: str, *, quiet: bool) -> Iterator[Progress | None]:
    """A bar on a terminal."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415 - importing Rich takes longer than most commands
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bars  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bars(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(name, total=None)
        yield lambda sent, total: bars.update(task, completed=sent, total=total)
