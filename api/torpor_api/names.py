"""What a machine may be called: by its own name, or by an alias that its account chose."""

from __future__ import annotations

import re

from torpor_api.errors import MachineNotFound
from torpor_api.ledger import SqlLedger

MACHINE_NAME = re.compile(r"[A-Za-z0-9]{16}")
ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
RESERVED = frozenset({"new", "list"})
"""Words that stand where a name does in the paths of the API."""


def is_alias(text: str) -> bool:
    """Whether an account may call a machine so."""
    return bool(ALIAS.fullmatch(text)) and not MACHINE_NAME.fullmatch(text) and text not in RESERVED


async def machine_named(ledger: SqlLedger, account: str, text: str) -> str:
    """The name of the machine that a path means.

    Raises `MachineNotFound` for what cannot be a name, and for an alias that is not there; a name is not looked up.
    """
    if MACHINE_NAME.fullmatch(text):
        return text
    if not is_alias(text):
        raise MachineNotFound
    return await ledger.machine_of_alias(account, text)
