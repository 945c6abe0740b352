"""`torpor fsck`: whether the store has all that the database says is in it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sqlalchemy.exc import DatabaseError

from torpor_api.config import BadSettings, Config, read_config
from torpor_api.data_folder import DataFolderUnusableError, data_folder
from torpor_api.ledger.inventory import Need, NoInventory, read_inventory
from torpor_api.store_check import Checked, Report, State, StoreCheck
from torpor_snapshotter.key_store_url import open_key_store
from torpor_snapshotter.store import StoreError
from torpor_snapshotter.store_url import BadStoreUrl, open_store

PROBLEMS_STATUS = 1
BAD_SETTINGS_STATUS = 2
CANNOT_CHECK_STATUS = 3

CANNOT_CHECK = (DataFolderUnusableError, NoInventory, BadStoreUrl, StoreError, DatabaseError)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

_COLOURS = {State.MISSING: "red", State.DAMAGED: "red", State.LOCKED: "yellow"}


def _option(text: str) -> object:
    return typer.Option(help=text, show_default=False)


@app.command()
def fsck(
    *,
    data_dir: Annotated[Path | None, _option("Database, store and keys  [~/.local/share/torpor]")] = None,
    database_url: Annotated[str | None, _option("sqlite:///PATH  [torpor.db in the data folder]")] = None,
    store_url: Annotated[str | None, _option("file:///PATH or s3://BUCKET/PREFIX  [store in the data folder]")] = None,
    keys_url: Annotated[str | None, _option("file:///PATH  [keys in the data folder]")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Read manifests; of packs look only for their names.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Say it for a program.")] = False,
) -> None:
    """Check that the store has all that the database says, while no server runs; nothing is changed.

    Ends with status 1 if anything that a snapshot or a template needs is missing or damaged.
    """
    try:
        config = read_config(
            {"data_dir": data_dir, "database_url": database_url, "store_url": store_url, "keys_url": keys_url}
        )
    except BadSettings as error:
        _say(str(error))
        raise typer.Exit(BAD_SETTINGS_STATUS) from None
    try:
        checked = _check(config, quick=quick)
    except CANNOT_CHECK as error:
        _say(f"The store cannot be checked: {error}")
        raise typer.Exit(CANNOT_CHECK_STATUS) from None
    if as_json:
        typer.echo(json.dumps(_as_json(checked, quick=quick), indent=2))
    else:
        _show(checked, quick=quick)
    if checked.problems:
        raise typer.Exit(PROBLEMS_STATUS)


def _check(config: Config, *, quick: bool) -> Checked:
    if not config.data_dir.is_dir():
        raise NoInventory(f"There is no data folder {config.data_dir}; name it with --data-dir.")
    with data_folder(config.data_dir) as folder, _progress() as report:
        inventory = read_inventory(config.database, folder)
        check = StoreCheck(open_store(config.store), open_key_store(config.keys), inventory, report)
        return asyncio.run(check.run(quick=quick))


@contextmanager
def _progress() -> Iterator[Report]:
    """A bar on a terminal, nothing elsewhere."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("Checking objects", total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def _show(checked: Checked, *, quick: bool) -> None:
    console = Console(highlight=False)
    if checked.problems:
        table = Table("object", "is", "needed by", box=None, pad_edge=False)
        for problem in checked.problems:
            colour = _COLOURS[problem.state]
            table.add_row(escape(problem.key), f"[{colour}]{problem.state.value}[/]", escape(_names(problem.needs)))
        console.print(table)
        for problem in checked.problems:
            if problem.state is not State.MISSING:
                console.print(escape(problem.reason), soft_wrap=True)
    for key in checked.unreachable:
        console.print(f"[dim]unreachable[/] {escape(key)}", soft_wrap=True)
    if checked.unreachable:
        console.print("Nothing needs what is unreachable; the next start of the server deletes it.")
    if checked.kept:
        console.print(f"{checked.kept} objects that `torpor recover` could not read are kept.")
    how = "are there" if quick else "are whole"
    what = f"{checked.manifests} manifests and {checked.packs} packs"
    if checked.runtimes:
        some = "1 runtime" if checked.runtimes == 1 else f"{checked.runtimes} runtimes"
        what = f"{checked.manifests} manifests, {checked.packs} packs and {some}"
    if not checked.problems:
        console.print(f"[green]All is well:[/] {what} {how}.")
    else:
        console.print(f"[red]{len(checked.problems)} of {what} cannot be used.[/]")


def _names(needs: Iterable[Need]) -> str:
    """Who needs an object, like `machine abc: 3-5, 9; template data; runtime v1-0123`."""
    parts = []
    for (name, is_runtime), some in groupby(needs, key=lambda need: (need.name, need.is_runtime)):
        numbers = [need.generation for need in some if need.generation is not None]
        kind = "runtime" if is_runtime else "template"
        parts.append(f"machine {name}: {_ranges(numbers)}" if numbers else f"{kind} {name}")
    return "; ".join(parts)


def _ranges(numbers: list[int]) -> str:
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][-1] + 1:
            spans[-1] = [spans[-1][0], number]
        else:
            spans.append([number])
    return ", ".join("-".join(map(str, span)) for span in spans)


def _as_json(checked: Checked, *, quick: bool) -> dict[str, Any]:
    return {
        "ok": not checked.problems,
        "quick": quick,
        "manifests": checked.manifests,
        "packs": checked.packs,
        "runtimes": checked.runtimes,
        "problems": [
            {
                "object": problem.key,
                "state": problem.state.value,
                "reason": problem.reason,
                "snapshots": [
                    {"machine": need.name, "generation": need.generation}
                    for need in problem.needs
                    if need.generation is not None
                ],
                "templates": [need.name for need in problem.needs if need.generation is None and not need.is_runtime],
                "runtimes": [need.name for need in problem.needs if need.is_runtime],
            }
            for problem in checked.problems
        ],
        "unreachable": list(checked.unreachable),
        "condemned": checked.condemned,
        "kept": checked.kept,
    }


def _say(line: str) -> None:
    typer.echo(line, err=True)
