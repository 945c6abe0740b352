"""The mark of the one ledger whose objects are in a store: every other server would take them for garbage."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from torpor_snapshotter.key import PROBE_PREFIX
from torpor_snapshotter.store import AlreadyStored, NotStored, ObjectStore, StoreError

OWNER_KEY: Final = "torpor-owner"
"""The key of the mark; its object is the id of a ledger."""


class StoreOwned(StoreError):
    """The store is another server's, or not known to be this one's; the message says how to make it so."""


async def claim(store: ObjectStore, owner: str, *, has_objects: bool) -> None:
    """Mark the store as `owner`'s, or see that it is. Raises `StoreOwned`, `StoreError`.

    `has_objects`: whether the owner knows of objects; then a store without a mark may have some already.
    """
    found = await _read(store)
    if found is None:
        if not has_objects and (stranger := await _any_key(store)):
            raise StoreOwned(
                f"The store is not empty (there is {stranger}), and no server's: Torpor would delete what is in it. "
                "Name an empty one, or another prefix, with --store-url."
            )
        found = await _write(store, owner)
    if found != owner:
        raise StoreOwned(
            f"The store is another server's ({found[:100]}, this one is {owner}), and each would delete the objects of "
            "the other: name another store with --store-url. If this server's database was lost, `torpor recover` "
            "rebuilds it from the store. If you are sure that the other server is gone for good, and its machines with "
            f"it, delete everything in the store, the object {OWNER_KEY} last."
        )


async def is_marked(store: ObjectStore) -> bool:
    """Whether there is a mark, whosever it is. A store without one has been taken away, as a disk is unmounted."""
    return await _read(store) is not None


async def _read(store: ObjectStore) -> str | None:
    try:
        return (await store.read(OWNER_KEY)).decode(errors="replace").strip()
    except NotStored:
        return None


async def _write(store: ObjectStore, owner: str) -> str:
    async def body() -> AsyncIterator[bytes]:
        yield owner.encode()

    try:
        await store.put_new(OWNER_KEY, body())
    except AlreadyStored:
        return await _read(store) or ""
    return owner


async def _any_key(store: ObjectStore) -> str | None:
    async for key in store.list():
        if not key.startswith(PROBE_PREFIX):
            return key
    return None
