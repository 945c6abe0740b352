"""Several runtimes side by side: each machine wakes on that of its snapshot, and none is harmed when one is missing."""

from tests.support.house import House, until


async def asleep_on(house: House, series: str) -> None:
    """The machine has a variable in a snapshot of this runtime series, and a newer runtime is there for new ones."""
    house.host.series = series
    await house.run("a = 3")
    assert await house.worker.sleep("m")
    house.host.series = "new"


async def test_a_machine_wakes_on_the_runtime_of_its_snapshot_and_a_new_one_gets_the_newest(house: House) -> None:
    await asleep_on(house, "old")
    house.ledger.create("n")

    assert await house.value("a + 5") == "8"
    await house.run("b = 1", "n")

    await house.worker.sync("m")
    await house.worker.sync("n")
    assert {sandbox.machine: sandbox.series for sandbox in house.host.sandboxes.values()} == {"m": "old", "n": "new"}
    heads = [house.machine(name).head for name in ("m", "n")]
    assert [head.series for head in heads if head is not None] == ["old", "new"]


async def test_a_machine_whose_runtime_is_missing_waits_unharmed_until_it_is_there(house: House) -> None:
    await asleep_on(house, "old")
    house.host.missing.add("old")

    seq = house.send("a + 5")
    await until(lambda: "runtime_missing" in house.machine().notices)
    message, _ = house.machine().notices["runtime_missing"]
    assert "Runtime old is neither here nor in the store." in message

    house.host.missing.clear()
    house.worker.deliver("m", None)
    assert (await house.result(seq)).value == "8"
    assert "runtime_missing" not in house.machine().notices
    assert "set_aside" not in house.machine().notices


async def test_what_waits_for_a_quarantined_machine_runs_when_the_quarantine_is_lifted(house: House) -> None:
    await asleep_on(house, "old")
    house.ledger.quarantine["old"] = "a hole was found"

    seq = house.send("a + 5")
    await until(lambda: "runtime_quarantined" in house.machine().notices)
    assert not house.host.sandboxes

    house.ledger.quarantine.clear()
    house.worker.deliver("m", None)
    assert (await house.result(seq)).value == "8"
    assert house.machine().notices == {}
