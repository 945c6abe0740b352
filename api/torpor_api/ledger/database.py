"""How the database is reached: its address, its connections, and statements compiled once."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, cast

from sqlalchemy import Connection, Engine, NullPool, create_engine, event
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.selectable import SelectBase
from tenacity import retry, retry_if_exception, stop_after_delay, wait_random

BUSY_TIMEOUT_SECONDS = 30
CACHE_KIBIBYTES = 512
FILE_NAME = "torpor.db"


def open_engine(url: str, data_dir: Path) -> Engine:
    """An engine for `sqlite:` (a file in the data folder) or `sqlite:///path`. Raises ValueError for anything else."""
    if not url.startswith("sqlite:"):
        raise ValueError(f"the database {url.partition(':')[0]}: is not supported, only sqlite: is")
    path = url.removeprefix("sqlite:").removeprefix("//").removeprefix("/") or str(data_dir / FILE_NAME)
    engine = create_engine(
        f"sqlite:///{path}",
        isolation_level="AUTOCOMMIT",  # transactions are begun and ended in so many words
        poolclass=NullPool,
        connect_args={"timeout": BUSY_TIMEOUT_SECONDS, "cached_statements": 256, "check_same_thread": False},
    )
    event.listen(engine, "connect", _configure)
    return engine


def _configure(connection: sqlite3.Connection, _record: object) -> None:
    _write_ahead(connection)
    for pragma in ("synchronous = FULL", "foreign_keys = ON", f"cache_size = -{CACHE_KIBIBYTES}"):
        connection.execute(f"PRAGMA {pragma}").close()


def is_busy(error: BaseException) -> bool:
    """Whether another process has the database's lock."""
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY


# On a new database SQLite does not wait for its lock before it changes the mode, whatever the connection's time-out.
@retry(
    retry=retry_if_exception(is_busy),
    stop=stop_after_delay(BUSY_TIMEOUT_SECONDS),
    wait=wait_random(0.005, 0.05),
    reraise=True,
)
def _write_ahead(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL").close()


def driver(connection: Connection) -> sqlite3.Connection:
    """The driver's own connection underneath."""
    return cast(sqlite3.Connection, connection.connection.driver_connection)


class Statement:
    """A statement that is compiled once and run by the driver itself: a tenth of the cost of `Connection.execute`.

    For the few that run for every instruction. Values must be what the driver takes, and come back as it gives them.
    """

    def __init__(self, construct: SelectBase | UpdateBase, *columns: str) -> None:
        """`columns` are those that an insert or update sets from values of the same name."""
        compiled = construct.compile(dialect=sqlite.dialect(paramstyle="named"), column_keys=list(columns) or None)
        self._text = str(compiled)
        self._constants = {name: value for name, value in compiled.params.items() if value is not None}

    def run(self, connection: Connection, **values: Any) -> sqlite3.Cursor:
        """Run it in the connection's transaction."""
        return driver(connection).execute(self._text, self._constants | values)

    def first(self, connection: Connection, **values: Any) -> tuple[Any, ...] | None:
        """Its first row, if any. The statement is run to its end."""
        rows = self.run(connection, **values).fetchall()
        return rows[0] if rows else None
