"""Accounts and their API keys, of which only hashes are stored."""

from __future__ import annotations

import hashlib
import hmac
import re

from sqlalchemy import Connection, bindparam, delete, exists, insert, select

from torpor_api.errors import KeyNotFound, LastKey
from torpor_api.ledger.database import Statement
from torpor_api.ledger.moments import moment, now
from torpor_api.ledger.rows import ApiKey
from torpor_api.ledger.schema import accounts, keys

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

_DIGESTS = Statement(
    select(keys.c.digest)
    .join(accounts, accounts.c.id == keys.c.account_id)
    .where(accounts.c.name == bindparam("account"))
)


def create(connection: Connection, name: str) -> None:
    """Make an account if there is none of this name. Raises ValueError for a name that cannot stand in a token."""
    if not NAME.fullmatch(name):
        raise ValueError("an account's name is 1 to 64 letters, digits, - and _")
    if connection.scalar(select(accounts.c.id).where(accounts.c.name == name)) is None:
        connection.execute(insert(accounts).values(name=name, created_at=now()))


def add_key(connection: Connection, account: str, secret: str, name: str = "") -> None:
    """Let a secret in. Raises ValueError if there is no such account, or the secret is empty."""
    account_id = connection.scalar(select(accounts.c.id).where(accounts.c.name == account))
    if account_id is None:
        raise ValueError(f"there is no account {account}")
    if not secret:
        raise ValueError("a secret is not empty")
    digest = digest_of(secret)
    known = select(exists().where(keys.c.account_id == account_id, keys.c.digest == digest))
    if not connection.scalar(known):
        connection.execute(insert(keys).values(account_id=account_id, digest=digest, created_at=now(), name=name))


def list_keys(connection: Connection, account: str) -> list[ApiKey]:
    """The account's keys, oldest first."""
    query = select(keys).join(accounts, accounts.c.id == keys.c.account_id).where(accounts.c.name == account)
    return [
        ApiKey(id=key_id(row.digest), name=row.name, created_at=moment(row.created_at))
        for row in connection.execute(query.order_by(keys.c.id))
    ]


def revoke_key(connection: Connection, account: str, wanted: str) -> None:
    """Let a key in no longer. Raises `KeyNotFound`, and `LastKey` if nobody could get in any more."""
    query = select(keys).join(accounts, accounts.c.id == keys.c.account_id).where(accounts.c.name == account)
    rows = connection.execute(query).all()
    found = next((row for row in rows if key_id(row.digest) == wanted), None)
    if found is None:
        raise KeyNotFound
    if len(rows) == 1:
        raise LastKey
    connection.execute(delete(keys).where(keys.c.id == found.id))


def key_id(digest: bytes) -> str:
    """What a key is called by in the API: enough of its digest to tell it from the account's others."""
    return digest.hex()[:16]


def any_exist(connection: Connection) -> bool:
    """Whether there is any account."""
    return bool(connection.scalar(select(exists().select_from(accounts))))


def opens(connection: Connection, account: str, secret: str) -> bool:
    """Whether the secret is one of the account's; takes as long for a wrong one as for a right one."""
    given = digest_of(secret)
    found = False
    for (digest,) in _DIGESTS.run(connection, account=account).fetchall():
        found |= hmac.compare_digest(digest, given)
    return found


def digest_of(secret: str) -> bytes:
    """What is stored of a secret. Secrets are long and random, so that a plain hash is enough."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
