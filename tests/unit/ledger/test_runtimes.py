"""What the ledger knows of runtimes: which are needed, which run nothing, and what of them may be deleted."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.ledger import ACCOUNT, accepted, awake, new_machine, saved

from torpor_api.errors import RuntimeQuarantined
from torpor_api.ledger import SqlLedger
from torpor_api.ledger import runtimes as records
from torpor_api.ledger.database import FILE_NAME
from torpor_api.ledger.runtime_records import runtime_records
from torpor_snapshotter.runtime import Runtime
from torpor_worker.ledger import KeptRuntime

KEPT = KeptRuntime("runtimes/series/description", "sha256")


def runtime(series: str = "series", binary: str = "binary") -> Runtime:
    return Runtime(series, Path("runsc"), "v1", binary, Path("rootfs.erofs"), "rootfs")


async def test_the_store_lacks_what_new_machines_and_snapshots_need_until_all_of_it_was_put(ledger: SqlLedger) -> None:
    await ledger.register_runtime(runtime("unneeded"), newest=False)
    await ledger.register_runtime(runtime("series"), newest=False)
    await ledger.register_runtime(runtime("new"), newest=True)
    assert await ledger.runtimes_to_keep() == [("new", "binary")]
    await saved(ledger, await awake(ledger, await new_machine(ledger)), None, 0)
    assert await ledger.runtimes_to_keep() == [("new", "binary"), ("series", "binary")]

    assert await ledger.allot_runtime("series", ["runtimes/parts/1", KEPT.key])
    assert {"runtimes/parts/1", KEPT.key} <= await ledger.known_keys()
    assert await ledger.kept_runtime("series") is None
    await ledger.commit_runtime("series", "binary", KEPT)

    assert await ledger.kept_runtime("series") == KEPT
    assert await ledger.runtimes_to_keep() == [("new", "binary")]


async def test_a_runtime_that_is_about_to_be_put_is_known_as_the_stores_content(ledger: SqlLedger) -> None:
    await ledger.register_runtime(runtime("new"), newest=True)
    assert not await ledger.knows_objects()
    assert await ledger.allot_runtime("new", [KEPT.key])
    assert await ledger.knows_objects()


async def test_what_a_removed_runtime_shares_with_another_stays_and_the_rest_is_condemned(
    ledger: SqlLedger, tmp_path: Path
) -> None:
    for series in ("series", "other"):
        await ledger.register_runtime(runtime(series), newest=False)
        assert await ledger.allot_runtime(series, ["runtimes/parts/shared", f"runtimes/parts/{series}"])

    with runtime_records(f"sqlite:///{tmp_path / FILE_NAME}", tmp_path) as connection:
        assert connection is not None
        assert records.forget(connection, "series")

    assert await ledger.condemned() == ["runtimes/parts/series"]
    assert "runtimes/parts/shared" in await ledger.known_keys()
    # Until it is deleted it cannot be put again: the deletion would come after.
    assert not await ledger.allot_runtime("other", ["runtimes/parts/series"])
    await ledger.forget_condemned(["runtimes/parts/series"])
    assert await ledger.allot_runtime("other", ["runtimes/parts/series"])
    assert await ledger.condemned() == ["runtimes/parts/shared", "runtimes/parts/other"][::-1]


async def test_a_host_with_another_binary_does_not_undo_what_was_admitted(ledger: SqlLedger, tmp_path: Path) -> None:
    assert await ledger.register_runtime(runtime(binary="old"), newest=True)
    await ledger.commit_runtime("series", "old", KEPT)
    with runtime_records(f"sqlite:///{tmp_path / FILE_NAME}", tmp_path) as connection:
        assert connection is not None
        records.admit(connection, "series", "rebuilt")

    assert not await ledger.register_runtime(runtime(binary="old"), newest=True)
    await ledger.commit_runtime("series", "old", KEPT)
    assert await ledger.kept_runtime("series") is None
    assert await ledger.runtimes_to_keep() == [("series", "rebuilt")]


async def test_only_machines_of_a_quarantined_runtime_are_refused(ledger: SqlLedger, tmp_path: Path) -> None:
    machine, fresh = await new_machine(ledger), await new_machine(ledger)
    await saved(ledger, await awake(ledger, machine), None, 0)
    for series in ("series", "new"):
        await ledger.register_runtime(runtime(series), newest=series == "new")
    with runtime_records(f"sqlite:///{tmp_path / FILE_NAME}", tmp_path) as connection:
        assert connection is not None
        assert records.quarantine(connection, "series", "a hole was found")
        assert not records.quarantine(connection, "unknown", "a hole was found")

    with pytest.raises(RuntimeQuarantined, match=r"Runtime series .* quarantined.*: a hole was found\."):
        await accepted(ledger, machine)
    assert await ledger.is_quarantined(ACCOUNT, machine)
    await accepted(ledger, fresh)

    with runtime_records(f"sqlite:///{tmp_path / FILE_NAME}", tmp_path) as connection:
        assert connection is not None
        records.quarantine(connection, "series", None)
        records.quarantine(connection, "new", "another")
    await accepted(ledger, machine)
    with pytest.raises(RuntimeQuarantined):
        await accepted(ledger, fresh)
