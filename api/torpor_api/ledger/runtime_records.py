"""What the ledger knows of runtimes, for commands that run beside a server or without one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection

from torpor_api.ledger.database import driver, open_engine
from torpor_api.ledger.inventory import check_version


@contextmanager
def runtime_records(url: str, data_dir: Path) -> Iterator[Connection | None]:
    """One transaction on the database at `url`; None if there is none yet. See `torpor_api.ledger.runtimes`.

    Raises `NoInventory` if the database is another version's.
    """
    engine = open_engine(url, data_dir)
    path = engine.url.database
    if path is None or not Path(path).is_file():
        yield None
        return
    with engine.connect() as connection:
        driver(connection).execute("BEGIN IMMEDIATE")
        try:
            check_version(connection)
            yield connection
        except BaseException:
            driver(connection).execute("ROLLBACK")
            raise
        driver(connection).execute("COMMIT")
