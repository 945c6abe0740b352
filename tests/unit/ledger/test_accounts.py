from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from torpor_api.errors import Unauthorized
from torpor_api.ledger import SqlLedger
from torpor_api.ledger.authenticated import KEPT, KEPT_SECONDS, Authenticated
from torpor_api.ledger.database import FILE_NAME


async def test_a_key_opens_its_own_account_only(ledger: SqlLedger) -> None:
    await ledger.create_account("other")
    await ledger.add_key("other", "a.secret-with.dots")

    assert await ledger.authenticate("other.a.secret-with.dots") == "other"
    with pytest.raises(Unauthorized):
        await ledger.authenticate("me.a.secret-with.dots")


@pytest.mark.parametrize(
    "token", ["", "me", "me.", ".", ".secret", "me.wrong", "nobody.secret", "me.secret\udc80", "m\0."]
)
async def test_what_is_not_a_key_is_refused(ledger: SqlLedger, token: str) -> None:
    await ledger.add_key("me", "secret")

    with pytest.raises(Unauthorized):
        await ledger.authenticate(token)


async def test_accounts_and_keys_can_be_made_again_without_effect(ledger: SqlLedger) -> None:
    await ledger.create_account("me")
    await ledger.add_key("me", "secret")
    await ledger.add_key("me", "secret")

    assert await ledger.authenticate("me.secret") == "me"
    assert await ledger.has_accounts()


async def test_a_secret_is_nowhere_in_the_database(ledger: SqlLedger, tmp_path: Path) -> None:
    await ledger.add_key("me", "this-is-the-secret")
    await ledger.close()

    assert sqlite3.sqlite_version_info >= (3, 35)  # RETURNING
    assert b"this-is-the-secret" not in (tmp_path / FILE_NAME).read_bytes()


@pytest.mark.parametrize("name", ["", "a.b", "a b", "ä", "x" * 65])
async def test_a_name_that_cannot_stand_in_a_token_is_no_account(ledger: SqlLedger, name: str) -> None:
    with pytest.raises(ValueError, match="letters"):
        await ledger.create_account(name)


def test_checked_tokens_are_forgotten_after_a_while_and_bounded_in_number() -> None:
    now = 0.0
    authenticated = Authenticated(lambda: now)
    for number in range(KEPT + 1):
        authenticated.remember(f"me.{number}", "me")

    assert authenticated.account_of("me.0") is None
    assert authenticated.account_of("me.1") == "me"
    now = KEPT_SECONDS
    assert authenticated.account_of("me.1") is None
