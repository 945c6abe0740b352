"""Templates in the store: their packs stay for as long as the template, or a snapshot, needs them."""

import pytest
from tests.support.ledger import ACCOUNT, awake, new_machine, saved

from torpor_api.ledger import SqlLedger
from torpor_snapshotter.key import pack_key
from torpor_worker.ledger import Hold, StoredTemplate


async def stored(ledger: SqlLedger, version: str) -> StoredTemplate:
    """A version of the template `python` that was put into the store."""
    template = StoredTemplate(await ledger.allot_template("python", version), f"sha256 of {version}")
    await ledger.commit_template("python", template, 100)
    return template


async def test_a_template_is_found_by_its_version_once_it_is_stored(ledger: SqlLedger) -> None:
    key = await ledger.allot_template("python", "1")
    assert await ledger.stored_template("python", "1") is None
    assert {key, pack_key(key)} <= await ledger.known_keys()

    await ledger.commit_template("python", StoredTemplate(key, "sha256"), 100)
    assert await ledger.stored_template("python", "1") == StoredTemplate(key, "sha256")
    assert await ledger.stored_template("python", "2") is None
    assert await ledger.stored_template("data", "1") is None


async def test_a_template_keeps_its_pack_when_the_last_machine_is_deleted(ledger: SqlLedger, hold: Hold) -> None:
    template = await stored(ledger, "1")
    await saved(ledger, hold, None, 0, shared=(pack_key(template.manifest_key),))
    await ledger.delete_machine(ACCOUNT, hold.machine)
    assert pack_key(template.manifest_key) in await ledger.known_keys()


async def test_a_snapshot_keeps_the_pack_of_a_template_that_was_replaced(ledger: SqlLedger, hold: Hold) -> None:
    old = await stored(ledger, "1")
    await saved(ledger, hold, None, 0, shared=(pack_key(old.manifest_key),))
    await stored(ledger, "2")
    assert await ledger.condemned() == [old.manifest_key]
    assert await ledger.condemned_machines() == [old.manifest_key.split("/")[1]]

    await ledger.delete_machine(ACCOUNT, hold.machine)
    assert pack_key(old.manifest_key) in await ledger.condemned()


async def test_a_template_that_was_replaced_meanwhile_is_not_committed(ledger: SqlLedger) -> None:
    late = StoredTemplate(await ledger.allot_template("python", "1"), "sha256")
    await stored(ledger, "2")
    with pytest.raises(ValueError, match="not the key"):
        await ledger.commit_template("python", late, 100)


async def test_a_machine_has_stored_what_is_its_own(ledger: SqlLedger, hold: Hold) -> None:
    template = await stored(ledger, "1")
    other = await awake(ledger, await new_machine(ledger))
    for each in (hold, other):
        await saved(ledger, each, None, 0, shared=(pack_key(template.manifest_key),))
    assert [machine.stored_bytes for machine in (await ledger.machines(ACCOUNT))[0]] == [10, 10]
    assert (await ledger.machine(ACCOUNT, hold.machine)).stored_bytes == 10
