"""`torpor serve`: everything in one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
import uvloop
from sqlalchemy.exc import DatabaseError

from torpor_api.config import BadSettings, read_config
from torpor_api.data_folder import DataFolderUnusableError, data_folder
from torpor_api.logs import configure_logs
from torpor_api.server import AddressUnusableError, bind
from torpor_api.serving import serve
from torpor_snapshotter.runtimes import RuntimeProblem
from torpor_snapshotter.store_url import BadStoreUrl
from torpor_worker.sandbox import SandboxError
from torpor_worker.snapshots import SnapshotterError

BAD_SETTINGS_STATUS = 2
CANNOT_START_STATUS = 3

CANNOT_START = (
    DataFolderUnusableError,
    AddressUnusableError,
    RuntimeProblem,
    BadStoreUrl,
    SnapshotterError,
    SandboxError,
    DatabaseError,
)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def _option(text: str) -> object:
    return typer.Option(help=text, show_default=False)


@app.command()
def main(
    listen: Annotated[str | None, _option("host:port  [127.0.0.1:8000]")] = None,
    data_dir: Annotated[Path | None, _option("Database, store, keys and images  [~/.local/share/torpor]")] = None,
    database_url: Annotated[str | None, _option("sqlite:///PATH  [torpor.db in the data folder]")] = None,
    store_url: Annotated[str | None, _option("file:///PATH or s3://BUCKET/PREFIX  [store in the data folder]")] = None,
    keys_url: Annotated[str | None, _option("file:///PATH  [keys in the data folder]")] = None,
    store_cache: Annotated[str | None, _option("Kept on the disk of a bucket's content; 0B: none  [4GiB]")] = None,
    keep_runtimes: Annotated[bool | None, _option("Put runtimes that are needed into the store too  [yes]")] = None,
    idle_seconds: Annotated[str | None, _option("Idle machines fall asleep after so long  [60]")] = None,
    quiet_save_seconds: Annotated[str | None, _option("Quiet machines are saved after so long  [2]")] = None,
    replay_seconds: Annotated[str | None, _option("What a recovery may execute again, in running time  [300]")] = None,
    save_interval_seconds: Annotated[str | None, _option("Busy machines are saved this often  [60]")] = None,
    memory_per_machine: Annotated[str | None, _option("For example 512MiB  [1GiB]")] = None,
    memory_total: Annotated[str | None, _option("For all awake machines  [60 % of the host's]")] = None,
    warm_machines: Annotated[str | None, _option("At most so many wait for new machines; 0: none  [24]")] = None,
    spare_sandboxes: Annotated[str | None, _option("At most so many wait for wakes; 0: none  [24]")] = None,
    uploads_per_account: Annotated[str | None, _option("Kept of one account's uploads  [16GiB]")] = None,
    disk_reserve: Annotated[str | None, _option("No uploads with less free on the disk  [1GiB]")] = None,
    output_limit: Annotated[str | None, _option("Output kept of one instruction  [8MiB]")] = None,
    timeout_seconds: Annotated[str | None, _option("Time-out of an instruction that names none  [15]")] = None,
    timeout_maximum_seconds: Annotated[str | None, _option("The longest time-out  [3600]")] = None,
    log_days: Annotated[str | None, _option("Code and results are kept for so long, or forever  [365]")] = None,
    output_days: Annotated[str | None, _option("Output is kept for so long, or forever  [30]")] = None,
    events_days: Annotated[str | None, _option("Machines' events are kept for so long, or forever  [90]")] = None,
    drain_seconds: Annotated[str | None, _option("How long a stop may save machines  [60]")] = None,
) -> None:
    """Run a server: the API, one worker, one snapshotter. Every option is also a variable TORPOR_*."""
    flags = dict(locals())
    try:
        config = read_config(flags)
    except BadSettings as error:
        _say(str(error))
        raise typer.Exit(BAD_SETTINGS_STATUS) from None
    configure_logs()
    try:
        with data_folder(config.data_dir) as folder, bind(*config.address) as listener:
            status = uvloop.run(serve(config, folder, listener, _say))
    except CANNOT_START as error:
        _say(f"The server cannot start: {error}")
        raise typer.Exit(CANNOT_START_STATUS) from None
    raise typer.Exit(status)


def _say(line: str) -> None:
    typer.echo(line, err=True)
