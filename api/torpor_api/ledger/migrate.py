"""Brings a database to the newest schema."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine

from torpor_api.ledger.database import driver

SCRIPTS = Path(__file__).parent / "migrations"


def migrate(engine: Engine) -> None:
    """Run the migrations that are missing, in one transaction; of several processes one does it and the rest wait.

    Raises alembic's `CommandError` if the database was written by a newer version.
    """
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        with connection.begin():  # tells Alembic that the transaction is not its own
            driver(connection).execute("BEGIN IMMEDIATE")
            command.upgrade(config, "head")
