"""Constraints of a table that is there: SQLite changes none, and a new table would take all that refers to it along."""

from __future__ import annotations

import re

import sqlalchemy as sa
from alembic import op


def change_check(table: str, name: str, condition: str) -> None:
    """Let the CHECK constraint `ck_<table>_<name>` have another condition, which every row must meet already.

    As https://sqlite.org/lang_altertable.html has it for changes that leave the file's content as it is.
    """
    connection = op.get_bind()
    query = sa.text("SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = :table")
    text = connection.scalar(query, {"table": table})
    found = re.search(rf"CONSTRAINT \"?ck_{table}_{name}\"? CHECK \(", text)
    if found is None:
        raise ValueError(f"{table} has no constraint {name}")
    end, depth = found.end(), 1
    while depth:
        depth += {"(": 1, ")": -1}.get(text[end], 0)
        end += 1
    changed = text[: found.end()] + condition + text[end - 1 :]
    version = connection.scalar(sa.text("PRAGMA schema_version"))
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    connection.execute(
        sa.text("UPDATE sqlite_schema SET sql = :sql WHERE type = 'table' AND name = :table"),
        {"sql": changed, "table": table},
    )
    connection.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
    connection.exec_driver_sql("PRAGMA writable_schema = OFF")
    connection.exec_driver_sql(f"PRAGMA integrity_check({table})")
