"""`torpor doctor`: prove that this host can run, save and wake machines, or say what to do about it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from torpor_api.data_dir import default_data_dir
from torpor_snapshotter import runtimes
from torpor_snapshotter.runtime import Runtime
from torpor_worker.doctor import Finding, Verdict, examine

app = typer.Typer(help="Prove that this host can run, save and wake machines.")

_COLOURS = {Verdict.GOOD: "green", Verdict.WEAK: "yellow", Verdict.LACKING: "red"}

DataDir = Annotated[
    Path,
    typer.Option(
        "--data-dir", default_factory=default_data_dir, show_default=False, help="Where Torpor keeps what it stores."
    ),
]


@app.callback(invoke_without_command=True)
def doctor(
    data_dir: DataDir,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Say it for a program.")] = False,
) -> None:
    """Look at this host, then run, save and wake a tiny machine. Ends with status 1 if that cannot be done."""
    data_dir.mkdir(parents=True, exist_ok=True)
    with Console(stderr=True).status("Looking ...") as status:

        def report(finding: Finding) -> None:
            status.update(f"Looked at {finding.subject} ...")

        findings = asyncio.run(examine(_runtime(data_dir), data_dir.absolute(), report))
    if as_json:
        typer.echo(json.dumps([_as_json(finding) for finding in findings], indent=2))
    else:
        _show(findings)
    if any(finding.verdict is Verdict.LACKING for finding in findings):
        raise typer.Exit(1)


def _runtime(data_dir: Path) -> Runtime | str:
    try:
        return runtimes.current(data_dir)
    except runtimes.RuntimeProblem as problem:
        return str(problem)


def _as_json(finding: Finding) -> dict[str, Any]:
    return {
        "subject": finding.subject,
        "verdict": finding.verdict.value,
        "found": finding.found,
        "cure": finding.cure,
    }


def _show(findings: list[Finding]) -> None:
    console = Console(highlight=False)
    console.print(_table(findings))
    for finding in findings:
        if finding.cure is not None:
            console.print(f"[bold]{finding.subject}[/]: {finding.cure}", soft_wrap=True)


def _table(findings: list[Finding]) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    for finding in findings:
        colour = _COLOURS[finding.verdict]
        table.add_row(f"[{colour}]{finding.verdict.value}[/]", finding.subject, finding.found)
    return table
