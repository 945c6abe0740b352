"""Run by Alembic: the connection, with its transaction begun, comes from `torpor_api.ledger.migrate`."""

from __future__ import annotations

from alembic import context

from torpor_api.ledger.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=False)
context.run_migrations()
