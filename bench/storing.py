"""What saves add to the store, in bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from bench.connection import Connection
from bench.settling import wait_until_settled

_IMPORTS = "import numpy, pandas, sklearn, matplotlib.pyplot as plt\nfrom sklearn import linear_model"
_RANDOM_BYTES = 100_000_000


@dataclass(frozen=True, slots=True)
class StoredBytes:
    """One save, or the few that followed one instruction."""

    what: str
    stored_bytes: int
    most_bytes: int
    """What is aimed at."""


def measure_storing(connection: Connection, data_dir: Path) -> list[StoredBytes]:
    """Saves of three machines of a server whose store is a folder of its data folder; their templates are stored."""
    _have_template(connection, data_dir, "data")
    bare, data, large = (_Machine(connection, data_dir / "store", name) for name in ("python", "data", "python"))
    change = "frame = pandas.DataFrame({'a': range(100)}); total = frame.a.sum()"
    return [
        StoredBytes("bare machine, a few variables", bare.save("a, b, c = 1, 'two', [3]"), 200_000),
        StoredBytes("the same, one more after a small change", bare.save("a = 4"), 200_000),
        StoredBytes(
            "template `data`, with NumPy, pandas, Matplotlib, scikit-learn imported", data.save(_IMPORTS), 1_500_000
        ),
        StoredBytes("the same, one more after a small change", data.save(change), 300_000),
        StoredBytes("bare machine, for what follows", large.save("import os"), 200_000),
        StoredBytes(
            "the same, and 100 MB of new random data",
            large.save(f"noise = os.urandom({_RANDOM_BYTES})"),
            _RANDOM_BYTES * 102 // 100,
        ),
    ]


def storing_table(measured: list[StoredBytes]) -> Table:
    """All of it for a terminal."""
    made = Table(title="Bytes that a save adds to the store")
    made.add_column("What")
    made.add_column("Stored", justify="right", no_wrap=True)
    made.add_column("Target", justify="right", no_wrap=True)
    for one in measured:
        style = "green" if one.stored_bytes <= one.most_bytes else "red"
        made.add_row(one.what, f"[{style}]{one.stored_bytes / 1e6:.3f} MB[/]", f"≤ {one.most_bytes / 1e6:g} MB")
    return made


def _have_template(connection: Connection, data_dir: Path, name: str) -> None:
    """Have a template made, which its first machine does, and wait until it is stored."""
    first = connection.post("/v1/machine/new", {"template": name})["machine_name"]
    connection.post(f"/v1/machine/{first}/run", {"code": "1"})
    connection.delete(f"/v1/machine/{first}")
    wait_until_settled(data_dir, name)


class _Machine:
    """A new machine, and the objects that were counted already."""

    def __init__(self, connection: Connection, store: Path, template: str) -> None:
        name = connection.post("/v1/machine/new", {"template": template})["machine_name"]
        self._connection = connection
        self._folder = store / "machines" / name
        self._path = f"/v1/machine/{name}"
        self._counted = -1

    def save(self, code: str) -> int:
        """Run an instruction and save; the size of the objects of all generations since the last call."""
        result = self._connection.post(f"{self._path}/run", {"code": code, "timeout_seconds": 120})["result"]
        if "error" in result:
            raise RuntimeError(result["error"])
        self._connection.post(f"{self._path}/sync")
        new = [(generation, size) for generation, size in self._objects() if generation > self._counted]
        self._counted = max(generation for generation, _ in new)
        return sum(size for _, size in new)

    def _objects(self) -> Iterator[tuple[int, int]]:
        """Generation and size of each object of the machine: a manifest or a pack."""
        for file in self._folder.iterdir():
            yield int(file.name.split("-")[0]), file.stat().st_size
