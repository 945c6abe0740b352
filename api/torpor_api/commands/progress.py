"""What takes long says so: bars on a terminal, one line a step elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from sqlalchemy.exc import DatabaseError

from torpor_api.config import BadSettings
from torpor_api.data_folder import DataFolderUnusableError
from torpor_api.ledger.inventory import NoInventory
from torpor_snapshotter.runtimes import RuntimeProblem
from torpor_snapshotter.runtimes.progress import Report
from torpor_snapshotter.store import StoreError
from torpor_snapshotter.store_url import BadStoreUrl
from torpor_worker.golden import GoldenFailed

PROBLEMS = (
    RuntimeProblem,
    GoldenFailed,
    StoreError,
    BadStoreUrl,
    BadSettings,
    DataFolderUnusableError,
    NoInventory,
    DatabaseError,
    OSError,
)


@contextmanager
def progress() -> Iterator[Report]:
    """Bars on a terminal, one line per step elsewhere; what goes wrong becomes a sentence and status 1."""
    console = Console(stderr=True, highlight=False)
    try:
        if console.is_terminal:
            columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
            with Progress(*columns, console=console) as bars:
                yield _Bars(bars)
        else:
            yield _Lines(console)
    except PROBLEMS as problem:
        console.print(str(problem), soft_wrap=True)
        raise typer.Exit(1) from problem


class _Bars:
    """One bar per task."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()

    def __call__(self, task: str, fraction: float | None = None) -> None:
        with self._lock:
            if task not in self._tasks:
                self._tasks[task] = self._bars.add_task(task, total=None)
            if fraction is not None:
                self._bars.update(self._tasks[task], total=1, completed=fraction)


class _Lines:
    """One line when a task begins."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._begun: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, task: str, fraction: float | None = None) -> None:
        with self._lock:
            if task not in self._begun and fraction != 1:
                self._begun.add(task)
                self._console.print(f"{task} …", soft_wrap=True)
