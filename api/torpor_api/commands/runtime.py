"""`torpor runtime`: build, list and hand over what sandboxes are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from torpor_api.commands import runtime_series
from torpor_api.commands.progress import progress
from torpor_api.data_dir import default_data_dir
from torpor_snapshotter import runtimes
from torpor_snapshotter.runtime import Runtime

app = typer.Typer(help="Build, list and hand over runtimes: the sandbox binary and its root file system.")

DataDir = Annotated[
    Path,
    typer.Option(
        "--data-dir", default_factory=default_data_dir, show_default=False, help="Where Torpor keeps what it stores."
    ),
]


@app.command()
def build(
    *,
    data_dir: DataDir,
    runsc: Annotated[
        Path | None, typer.Option(envvar="TORPOR_RUNSC", help="A sandbox binary to use instead of building one.")
    ] = None,
    debian_mirror: Annotated[
        str | None, typer.Option(envvar="TORPOR_DEBIAN_MIRROR", help="A mirror of Debian; else the one apt uses.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing when it is installed already.")] = False,
) -> None:
    """Build the locked runtime, unless it is installed."""
    with progress() as report:
        built = runtimes.build(data_dir, runtimes.BuildSettings(runsc, debian_mirror), report)
    for notice in built.notices:
        Console(stderr=True, highlight=False).print(f"Notice: {notice}", soft_wrap=True)
    if built.is_new or not quiet:
        Console(highlight=False).print(f"Runtime {built.runtime.series} is ready.")


@app.command("list")
def list_runtimes(data_dir: DataDir) -> None:
    """List the installed runtimes; the one for new machines is marked."""
    console = Console(highlight=False)
    have = runtimes.installed(data_dir)
    if not have:
        console.print(f"There is none in {runtimes.runtimes_dir(data_dir)}. Run `torpor runtime build`.")
        return
    newest = runtimes.current(data_dir)
    known = runtime_series.known(data_dir)
    for runtime in have:
        mark = "*" if runtime == newest else " "
        mebibytes = runtime.rootfs.stat().st_size >> 20
        more = "".join(f", {word}" for word in known.get(runtime.series, ()))
        console.print(f"{mark} {runtime.series}  gVisor {runtime.runsc_version}  {mebibytes} MiB{more}", soft_wrap=True)


@app.command("import")
def import_file(file: Path, data_dir: DataDir) -> None:
    """Install the runtime in FILE, made by `torpor runtime export`."""
    with progress() as report:
        runtime = runtimes.import_runtime(data_dir, file, report)
    Console().print(f"Runtime {runtime.series} is ready.", highlight=False)


@app.command("export")
def export_file(
    file: Path,
    *,
    series: Annotated[str | None, typer.Option(help="Which one; by default the one for new machines.")] = None,
    data_dir: DataDir,
) -> None:
    """Write a runtime into FILE, to be imported on another host."""
    with progress() as report:
        runtimes.export_runtime(_find(data_dir, series), file, report)


@app.command()
def lock(
    *,
    update: Annotated[bool, typer.Option("--update", help="Lock the newest versions, and build them.")] = False,
    data_dir: DataDir,
    debian_mirror: Annotated[
        str | None, typer.Option(envvar="TORPOR_DEBIAN_MIRROR", help="A mirror of Debian; else the one apt uses.")
    ] = None,
) -> None:
    """Show what the runtime is built from, or bring it up to date (for developers: changes a checked-in file)."""
    console = Console(highlight=False)
    if update:
        with progress() as report:
            built = runtimes.update_lock(data_dir, runtimes.BuildSettings(debian_mirror=debian_mirror), report)
        console.print(f"Locked {built.runtime.series}.")
        return
    locked = runtimes.load_lock()
    console.print(f"Runtime {locked.series}: gVisor {locked.runsc_version}, Debian {locked.suite}")
    for package in locked.packages:
        console.print(f"  {package.name} {package.version}")
    for wheel in locked.wheels:
        console.print(f"  {wheel.name} {wheel.version}")


def _find(data_dir: Path, series: str | None) -> Runtime:
    if series is None:
        return runtimes.current(data_dir)
    for runtime in runtimes.installed(data_dir):
        if runtime.series == series:
            return runtime
    raise runtimes.RuntimeMissing(f"There is no runtime {series}; `torpor runtime list` shows those there are.")


runtime_series.add_to(app)
