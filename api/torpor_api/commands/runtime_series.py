"""`torpor runtime`: what becomes of a runtime while snapshots need it."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from torpor_api.commands.progress import progress
from torpor_api.config import Config, read_config
from torpor_api.data_folder import data_folder
from torpor_api.ledger import runtimes as records
from torpor_api.ledger.runtime_records import runtime_records
from torpor_snapshotter import runtimes
from torpor_snapshotter.runtime import Runtime
from torpor_snapshotter.runtimes import RuntimeMissing, RuntimeProblem
from torpor_snapshotter.runtimes.folder import built_for, exclusive, file_sha256, publish, remove
from torpor_snapshotter.runtimes.keeping import bring
from torpor_snapshotter.runtimes.progress import Report
from torpor_snapshotter.runtimes.runsc import stamped_version
from torpor_snapshotter.store_url import open_store
from torpor_worker.golden import GoldenFailed, goldens, wake

GOLDEN_FOLDER = Path(__file__).parents[3] / "tests" / "golden"
"""Where golden snapshots are in a checkout of Torpor's repository."""
NAMED_AT_MOST = 5

DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Where Torpor keeps what it stores.", show_default=False)
]
DatabaseUrl = Annotated[
    str | None, typer.Option("--database-url", help="sqlite:///PATH  [torpor.db in the data folder]")
]
StoreUrl = Annotated[str | None, typer.Option("--store-url", help="file:///PATH or s3://BUCKET/PREFIX")]
Series = Annotated[str, typer.Argument(help="As `torpor runtime list` shows it.")]


def add_to(app: typer.Typer) -> None:
    """Make these commands of `torpor runtime`."""
    for command in (rm, fetch, admit, quarantine):
        app.command()(command)


def known(data_dir: Path) -> dict[str, tuple[str, ...]]:
    """Words about each runtime that the database knows, for `torpor runtime list`."""
    config = read_config({"data_dir": data_dir})
    with runtime_records(config.database, config.data_dir) as connection:
        return {} if connection is None else records.described(connection)


def rm(series: Series, data_dir: DataDir = None, database_url: DatabaseUrl = None) -> None:
    """Remove a runtime that no snapshot needs, here and from the store, while no server runs."""
    config = read_config({"data_dir": data_dir, "database_url": database_url})
    with progress() as report, data_folder(config.data_dir) as folder:
        found = {runtime.series: runtime for runtime in runtimes.installed(folder)}
        if found and series == runtimes.current(folder).series:
            raise RuntimeProblem(f"Runtime {series} is the one for new machines: install another one first.")
        with runtime_records(config.database, folder) as connection:
            if connection is not None:
                if users := records.users(connection, series):
                    raise RuntimeProblem(_needed(series, users))
                if not records.forget(connection, series) and series not in found:
                    raise _unknown(series)
            elif series not in found:
                raise _unknown(series)
        if series in found:
            with exclusive(folder, report):
                remove(found[series])
    Console(highlight=False).print(f"Runtime {series} is removed; the next start deletes what the store has of it.")


def fetch(
    series: Series, data_dir: DataDir = None, database_url: DatabaseUrl = None, store_url: StoreUrl = None
) -> None:
    """Install a runtime from the store, while no server runs (a server does it by itself when a machine needs it)."""
    config = read_config({"data_dir": data_dir, "database_url": database_url, "store_url": store_url})
    with progress() as report, data_folder(config.data_dir) as folder:
        with runtime_records(config.database, folder) as connection:
            place = None if connection is None else records.kept(connection, series)
        if place is None:
            raise RuntimeMissing(f"The store has no runtime {series}, as far as the database knows.")
        asyncio.run(bring(open_store(config.store), place.key, place.sha256, folder, report))
    Console(highlight=False).print(f"Runtime {series} is ready.")


def admit(
    binary: Annotated[Path, typer.Argument(help="A sandbox binary, or a folder with one named runsc.")],
    series: Annotated[str | None, typer.Option(help="Which runtime; by default all with the binary's stamp.")] = None,
    golden: Annotated[Path, typer.Option(help="Golden snapshots to wake.")] = GOLDEN_FOLDER,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Replace the sandbox binary of a runtime by a rebuild, if golden snapshots wake on it, while no server runs."""
    config = read_config({"data_dir": data_dir, "database_url": database_url})
    binary = binary / "runsc" if binary.is_dir() else binary
    console = Console(highlight=False)
    with progress() as report, data_folder(config.data_dir) as folder:
        stamp = stamped_version(binary)
        replaced = [
            runtime
            for runtime in runtimes.installed(folder)
            if runtime.runsc_version == stamp and series in (None, runtime.series)
        ]
        if not replaced:
            raise RuntimeMissing(f"No runtime {series or ''} with the binary's stamp, {stamp}, is installed.")
        _try(binary, stamp, golden, report)
        for runtime in replaced:
            _replace(config, folder, runtime, binary, report)
    for runtime in replaced:
        digest = file_sha256(runtime.runsc)
        console.print(f"Runtime {runtime.series} has the admitted binary, {digest}.", soft_wrap=True)


def quarantine(
    series: Series,
    reason: Annotated[str, typer.Option(help="For users: why.")] = "its operator has found it unsafe",
    *,
    lift: Annotated[bool, typer.Option("--lift", help="End the quarantine.")] = False,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Wake no machine of a runtime for instructions any more, at once, also while a server runs."""
    config = read_config({"data_dir": data_dir, "database_url": database_url})
    with progress(), runtime_records(config.database, config.data_dir) as connection:
        if connection is None:
            raise RuntimeProblem("There is no database, and so no machine of any runtime.")
        for runtime in runtimes.installed(config.data_dir):
            if runtime.series == series:
                records.register(connection, runtime, newest=False)
        if not records.quarantine(connection, series, None if lift else reason):
            raise _unknown(series)
    done = "is not quarantined any more" if lift else "is quarantined: its machines run no instructions"
    Console(highlight=False).print(f"Runtime {series} {done}.", soft_wrap=True)


def _try(binary: Path, stamp: str, golden: Path, report: Report) -> None:
    fitting = [one for one in goldens(golden) if one.runsc_version == stamp]
    if not fitting:
        raise GoldenFailed(
            f"There are no golden snapshots of the stamp {stamp} in {golden}, so that nobody knows whether machines "
            "would wake: not admitted. Torpor's repository has them in tests/golden; name that folder with --golden."
        )
    for one in fitting:
        scratch = Path(tempfile.mkdtemp(prefix="torpor-golden-"))
        scratch.chmod(0o755)
        try:
            asyncio.run(wake(one, binary, scratch, report))
        except GoldenFailed as failed:
            raise GoldenFailed(f"{binary} is not admitted. {failed}") from failed
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _replace(config: Config, folder: Path, runtime: Runtime, binary: Path, report: Report) -> None:
    with exclusive(folder, report) as work:
        shutil.copy(binary, work / "runsc")
        try:
            os.link(runtime.rootfs, work / "rootfs.erofs")
        except OSError:  # the runtime's folder is a link to another file system
            shutil.copy(runtime.rootfs, work / "rootfs.erofs")
        admitted = publish(
            folder,
            work / "runsc",
            work / "rootfs.erofs",
            runtime.runsc_version,
            built_for(runtime),
            replace=True,
        )
    with runtime_records(config.database, folder) as connection:
        if connection is not None:
            records.admit(connection, admitted.series, admitted.runsc_sha256)


def _needed(series: str, users: list[tuple[str, int]]) -> str:
    named = ", ".join(f"{machine} ({count})" for machine, count in users[:NAMED_AT_MOST])
    more = f" and {len(users) - NAMED_AT_MOST} more" if len(users) > NAMED_AT_MOST else ""
    return f"Snapshots of {len(users)} machines need runtime {series}, so that it stays: {named}{more}."


def _unknown(series: str) -> RuntimeMissing:
    return RuntimeMissing(f"There is no runtime {series}; `torpor runtime list` shows those there are.")
