"""`torpor recover`: a lost database, rebuilt from the store and the keys; with a machine's name, the SDK's command."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sqlalchemy.exc import DatabaseError
from typer.main import get_command

from torpor_api.config import BadSettings, Config, read_config
from torpor_api.data_folder import DataFolderUnusableError, data_folder
from torpor_api.ledger.moments import moment, now
from torpor_api.ledger.rebuild import DatabaseInUse, Rebuilt, rebuild, refuse_used
from torpor_api.rebuild.plan import Plan, plan
from torpor_api.rebuild.survey import StoreSurvey, Survey
from torpor_api.store_check import Report, State
from torpor_snapshotter.key_store_url import open_key_store
from torpor_snapshotter.store import StoreError
from torpor_snapshotter.store_url import BadStoreUrl, open_store

PROBLEMS_STATUS = 1
BAD_SETTINGS_STATUS = 2
CANNOT_REBUILD_STATUS = 3


class NothingToRebuild(Exception):
    """There is nothing that a database could be rebuilt from; the message says why and what to do."""


CANNOT_REBUILD = (
    NothingToRebuild,
    DatabaseInUse,
    DataFolderUnusableError,
    BadStoreUrl,
    StoreError,
    DatabaseError,
)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

_COLOURS = {State.MISSING: "red", State.DAMAGED: "red", State.LOCKED: "yellow"}


def _option(text: str) -> object:
    return typer.Option(help=text, show_default=False)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def recover(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(help="A parked machine, to be brought back.", show_default=False)
    ] = None,
    *,
    data_dir: Annotated[Path | None, _option("Keys, and the new database  [~/.local/share/torpor]")] = None,
    database_url: Annotated[str | None, _option("sqlite:///PATH  [torpor.db in the data folder]")] = None,
    store_url: Annotated[str | None, _option("file:///PATH or s3://BUCKET/PREFIX  [store in the data folder]")] = None,
    keys_url: Annotated[str | None, _option("file:///PATH  [keys in the data folder]")] = None,
    add: Annotated[
        bool, typer.Option("--add", help="Bring back machines that a database lacks: their keys were found.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what could be rebuilt; change nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Say it for a program.")] = False,
) -> None:
    """Rebuild a lost database from the store and the keys, while no server runs.

    With the name of a machine, `torpor recover NAME --how ...` brings that one back on a server that runs.

    A database with machines in it is never touched, but for --add. What cannot be read is listed, left out, and kept in
    the store; the status is then 1. New API keys are printed once.
    """
    if name is not None:
        _recover_machine(name, context, as_json=as_json)
        return
    try:
        config = read_config(
            {"data_dir": data_dir, "database_url": database_url, "store_url": store_url, "keys_url": keys_url}
        )
    except BadSettings as error:
        _say(str(error))
        raise typer.Exit(BAD_SETTINGS_STATUS) from None
    try:
        survey, planned, rebuilt = _rebuild(config, add=add, dry_run=dry_run)
    except CANNOT_REBUILD as error:
        _say(f"The database cannot be rebuilt: {error}")
        raise typer.Exit(CANNOT_REBUILD_STATUS) from None
    if as_json:
        typer.echo(json.dumps(_as_json(survey, planned, rebuilt), indent=2))
    else:
        _show(survey, planned, rebuilt)
    if survey.unusable:
        raise typer.Exit(PROBLEMS_STATUS)


def _recover_machine(name: str, context: typer.Context, *, as_json: bool) -> None:
    found = [entry for entry in entry_points(group="torpor.commands", name="recover") if _is_the_sdks(entry)]
    if not found:
        _say("The installed SDK cannot recover a single machine: install one of this version.")
        raise typer.Exit(BAD_SETTINGS_STATUS)
    arguments = [name, *context.args, *(["--json"] if as_json else [])]
    status = get_command(found[0].load()).main(arguments, prog_name="torpor recover", standalone_mode=False)
    if status:
        raise typer.Exit(status)


def _is_the_sdks(entry: EntryPoint) -> bool:
    return entry.dist is not None and entry.dist.name == "torpor"


def _rebuild(config: Config, *, add: bool, dry_run: bool) -> tuple[Survey, Plan, Rebuilt | None]:
    """What the store has, what follows from it, and what of that was written."""
    if not config.data_dir.is_dir():
        raise NothingToRebuild(f"There is no data folder {config.data_dir}; name the one with the keys by --data-dir.")
    with data_folder(config.data_dir) as folder:
        if not dry_run and not add:
            refuse_used(config.database, folder)
        with _progress() as report:
            survey = asyncio.run(StoreSurvey(open_store(config.store), open_key_store(config.keys), report).run())
        if not survey.snapshots and not survey.unusable:
            raise NothingToRebuild(f"The store {config.store} has no snapshots; name the right one with --store-url.")
        planned = plan(survey, now())
        return survey, planned, None if dry_run else rebuild(config.database, folder, planned, add=add)


@contextmanager
def _progress() -> Iterator[Report]:
    """A bar on a terminal, nothing elsewhere."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("Reading manifests", total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def _show(survey: Survey, planned: Plan, rebuilt: Rebuilt | None) -> None:
    console = Console(highlight=False)
    machines = Table("machine", "account", "generation", "saved", "snapshots", "next seq", box=None, pad_edge=False)
    some = planned.machines if rebuilt is None else rebuilt.machines
    for machine in some:
        head = str(machine.head.generation)
        if machine.newest > machine.head.generation:
            head += f" [yellow](of {machine.newest})[/]"
        saved = f"{moment(machine.head.created_at):%Y-%m-%d %H:%M:%S}"
        numbers = str(len(machine.snapshots)), str(machine.next_seq)
        machines.add_row(machine.name, escape(machine.account), head, saved, *numbers)
    console.print(machines)
    for one in survey.unusable:
        console.print(f"[{_COLOURS[one.state]}]{one.state.value}[/] {escape(one.reason)}", soft_wrap=True)
    if planned.kept:
        console.print(
            f"{len(planned.kept)} objects in the store are left alone, since what cannot be read may need them."
        )
    snapshots = sum(len(machine.snapshots) for machine in some)
    accounts = len({machine.account for machine in some})
    what = f"{len(some)} machines of {accounts} accounts with {snapshots} snapshots"
    if rebuilt is None:
        console.print(f"Nothing was changed. Could be rebuilt: {what}.")
        return
    console.print(f"[green]Rebuilt:[/] {what}.")
    console.print(
        "What machines did after their newest save, and every log before it, is not known any more; each has a "
        "notice that says so."
    )
    if rebuilt.api_keys:
        console.print("New API keys, shown only now; those from before are not known any more:")
        for key in rebuilt.api_keys.values():
            console.print(f"  {escape(key)}", soft_wrap=True)
        console.print(
            "One from before is let in again by a start with TORPOR_BOOTSTRAP_API_KEY=<account>.<secret>.",
            soft_wrap=True,
        )


def _as_json(survey: Survey, planned: Plan, rebuilt: Rebuilt | None) -> dict[str, Any]:
    return {
        "rebuilt": rebuilt is not None,
        "machines": [
            {
                "name": machine.name,
                "account": machine.account,
                "generation": machine.head.generation,
                "newest_generation": machine.newest,
                "snapshots": [one.generation for one in machine.snapshots],
                "next_seq": machine.next_seq,
            }
            for machine in (planned.machines if rebuilt is None else rebuilt.machines)
        ],
        "unusable": [{"object": one.key, "state": one.state.value, "reason": one.reason} for one in survey.unusable],
        "kept": list(planned.kept),
        "api_keys": {} if rebuilt is None else rebuilt.api_keys,
    }


def _say(line: str) -> None:
    typer.echo(line, err=True)
