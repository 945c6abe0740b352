"""Accounts and keys at the start of a server, and what its user is told of them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from pathlib import Path

from torpor_api.client_settings import save_client_settings
from torpor_api.config import Config
from torpor_api.ledger import SqlLedger

FIRST_ACCOUNT = "local"


async def prepare_accounts(ledger: SqlLedger, config: Config) -> str | None:
    """Make the key that a setting names, or a first one if there is no account yet; the key, None if none was made."""
    if config.bootstrap_api_key is not None:
        api_key = config.bootstrap_api_key.get_secret_value()
    elif await ledger.has_accounts():
        return None
    else:
        api_key = f"{FIRST_ACCOUNT}.{secrets.token_urlsafe(32)}"
    account, _, secret = api_key.partition(".")
    await ledger.create_account(account)
    await ledger.add_key(account, secret)
    return api_key


def introduce(tell: Callable[[str], None], url: str, api_key: str | None, settings: Path) -> None:
    """Save the key for the CLI and the SDK, and say how to begin."""
    if api_key is None:
        tell(f"API keys were made at an earlier start; {settings} has one if it was saved there.")
        tell("TORPOR_BOOTSTRAP_API_KEY=<account>.<secret> adds another at the next start.")
        return
    try:
        if save_client_settings(settings, url, api_key):
            tell(f"Saved for the CLI and the SDK in {settings}.")
        else:
            tell(f"Left {settings} alone: it names another server.")
    except OSError as error:
        tell(f"Could not save the key in {settings}: {error.strerror}.")
    body = json.dumps({"code": "a = 3; a + 5"})
    tell("Try it:")
    tell(f"  curl {url}/v1/run -H 'Authorization: Bearer {api_key}' -d '{body}'")
