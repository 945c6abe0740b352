"""What new machines begin with: templates that are there, missing or damaged, and the pool of warm sandboxes."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.house import House, until

from torpor_worker.templates import MODULES, PYTHON, REHEARSALS, Templates


@pytest.fixture
async def templated(tmp_path: Path) -> AsyncIterator[House]:
    """A host with a folder for templates; nothing runs yet."""
    house = House(tmp_path)
    house.set(retry_seconds=0.001)
    house.templates = Templates(tmp_path / "templates", house.host)
    yield house
    await house.worker.drain(30)


def warm(house: House) -> int:
    """How many sandboxes wait for a machine."""
    return sum(sandbox.machine == "warm" for sandbox in house.host.sandboxes.values())


async def template_is_there(house: House, name: str = PYTHON) -> None:
    templates = house.templates
    assert templates is not None
    await until(lambda: name in templates)


async def answer(house: House, name: str, code: str = "1 + 1", template: str | None = PYTHON) -> str | None:
    """The value of a new machine's first instruction."""
    house.ledger.create(name, template=template)
    seq = house.ledger.accept(name, code).seq
    assert seq is not None
    house.worker.deliver(name, None)
    await until(lambda: house.machine(name).instruction(seq).result is not None)
    result = house.machine(name).instruction(seq).result
    assert result is not None
    return result.value


async def test_a_machine_is_answered_while_no_template_is_there(templated: House) -> None:
    templated.host.open.clear()
    await templated.start()
    templated.host.open.set()
    assert await answer(templated, "m") == "2"
    assert "m" in templated.host.started


async def test_a_machine_begins_with_the_template_once_it_is_there(templated: House) -> None:
    await templated.start()
    await template_is_there(templated)
    assert await answer(templated, "m") == "2"
    assert templated.host.started == ["template-python"]


async def test_a_machine_without_a_template_begins_with_nothing(templated: House) -> None:
    await templated.start()
    await template_is_there(templated)
    assert await answer(templated, "m", template=None) == "2"
    assert "m" in templated.host.started


async def test_data_is_made_when_it_is_first_asked_for(templated: House) -> None:
    await templated.start()
    await template_is_there(templated)
    assert await answer(templated, "first", "preloaded()", "data") == "[]"
    await template_is_there(templated, "data")
    assert await answer(templated, "second", "preloaded()", "data") == repr(list(MODULES["data"]))


async def test_a_template_serves_after_a_restart(templated: House) -> None:
    await templated.start()
    await template_is_there(templated)
    await templated.restart()
    assert await answer(templated, "m") == "2"
    assert templated.host.started == ["template-python"]


async def test_a_template_of_other_guest_code_is_made_again(templated: House, tmp_path: Path) -> None:
    await templated.start()
    await template_is_there(templated)
    await templated.worker.drain(30)
    templated.host.version = "newer"
    templated.templates = Templates(tmp_path / "templates", templated.host)
    await templated.start()
    await template_is_there(templated)
    assert templated.host.started == ["template-python"] * 2
    assert len(list((tmp_path / "templates").iterdir())) == 1


async def test_a_template_that_does_not_restore_is_made_again_and_nobody_waits_for_it(templated: House) -> None:
    await templated.start()
    await template_is_there(templated)
    assert templated.templates is not None
    (templated.templates.image(PYTHON) / "state").unlink()
    templated.host.restore_failures = 1
    assert await answer(templated, "first") == "2"
    await until(lambda: templated.host.started.count("template-python") == 2)
    await template_is_there(templated)
    assert await answer(templated, "second") == "2"
    assert templated.host.started == ["template-python", "first", "template-python"]


async def test_a_template_that_cannot_be_made_is_given_up(templated: House) -> None:
    templated.host.checkpoint_failures = 1000
    await templated.start()
    await until(lambda: templated.host.checkpoint_failures == 997)
    assert await answer(templated, "m") == "2"
    assert templated.host.started == ["template-python"] * 3 + ["m"]
    assert templated.host.checkpoint_failures == 997


async def test_a_recovery_without_a_snapshot_begins_with_the_template(templated: House) -> None:
    await templated.start()
    await template_is_there(templated)
    assert await answer(templated, "m", "a = 3") is None
    await templated.crash()
    await templated.start()
    templated.ledger.accept("m", "a + 5")
    templated.worker.deliver("m", None)
    await until(lambda: (entry := templated.machine().instruction(1)).result is not None and entry.result.value == "8")
    assert templated.host.started == ["template-python"]


async def test_a_new_machine_takes_a_warm_sandbox_and_another_one_takes_its_place(templated: House) -> None:
    templated.set(warm_machines=2)
    await templated.start()
    await until(lambda: warm(templated) == 2)
    templated.ledger.create("m", memory_bytes=256 << 20, template=PYTHON)
    templated.ledger.accept("m", "a = 1")
    restored = templated.host.restored
    templated.worker.deliver("m", None)
    await until(lambda: templated.machine().instruction(0).result is not None)
    sandbox = next(sandbox for sandbox in templated.host.sandboxes.values() if sandbox.machine == "m")
    assert sandbox.limits.memory_bytes == 256 << 20
    assert templated.host.restored == restored
    await until(lambda: warm(templated) == 2)


async def test_what_waits_for_a_new_machine_has_rehearsed(templated: House) -> None:
    templated.set(warm_machines=2)
    await templated.start()
    await until(lambda: warm(templated) == 2)
    assert all(sandbox.has_rehearsed for sandbox in templated.host.sandboxes.values())


@pytest.mark.parametrize(
    ("failing", "started"),
    [(1, ["template-python"] * 2), (REHEARSALS + 1, ["template-python", "warm", "template-python"])],
    ids=["as the template", "as what waits"],
)
async def test_a_template_that_does_not_rehearse_is_made_again_and_nothing_of_it_stays(
    templated: House, failing: int, started: list[str]
) -> None:
    templated.set(warm_machines=2)
    templated.host.failing_rehearsal = failing
    await templated.start()
    await until(lambda: warm(templated) == 2)
    assert templated.host.started == started
    assert len(templated.host.sandboxes) == 2


async def test_warm_sandboxes_that_died_are_not_handed_out(templated: House) -> None:
    templated.set(warm_machines=2)
    await templated.start()
    await until(lambda: warm(templated) == 2)
    for sandbox in list(templated.host.sandboxes.values()):
        await sandbox.destroy()
    assert await answer(templated, "m") == "2"
    assert templated.host.started == ["template-python"]


async def test_warm_sandboxes_go_before_a_machine_has_to_sleep(templated: House) -> None:
    templated.set(warm_machines=2, total_memory_bytes=4 * templated.host.sandbox_bytes)
    await templated.start()
    await until(lambda: warm(templated) == 2)
    for name in ("a", "b", "c", "d"):
        assert await answer(templated, name) == "2"
    assert warm(templated) == 0
    assert all(templated.worker.phase(name) == "awake" for name in ("a", "b", "c", "d"))


async def answer_at_once(house: House, count: int, template: str = PYTHON) -> None:
    """Make so many machines, and wait until each has answered."""
    names = [f"at{number}once" for number in range(count)]
    assert await asyncio.gather(*(answer(house, name, template=template) for name in names)) == ["2"] * count


async def test_as_many_wait_as_were_asked_for_at_once(templated: House) -> None:
    templated.set(warm_machines=4)
    await templated.start()
    await until(lambda: warm(templated) == 2)
    await answer_at_once(templated, 3)
    await until(lambda: warm(templated) == 3)


async def test_the_pools_leave_memory_for_others(templated: House) -> None:
    templated.set(warm_machines=8, total_memory_bytes=8 * templated.host.sandbox_bytes)
    await templated.start()
    await answer_at_once(templated, 5)
    await until(lambda: warm(templated) == 1)


async def test_data_waits_once_it_was_asked_for(templated: House) -> None:
    templated.set(warm_machines=2)
    await templated.start()
    await until(lambda: warm(templated) == 2)
    await answer(templated, "first", template="data")
    await until(lambda: warm(templated) == 3)
    restored = templated.host.restored
    assert await answer(templated, "second", "preloaded()", "data") == repr(list(MODULES["data"]))
    assert templated.host.restored == restored


async def test_a_wake_takes_a_spare_sandbox_and_another_one_takes_its_place(templated: House) -> None:
    templated.set(spare_sandboxes=4)
    await templated.start()
    await until(lambda: templated.host.spares == 2)
    await answer(templated, "m", "a = 3")
    assert await templated.worker.sleep("m")
    templated.host.spares_used = 0
    seq = templated.send("a + 5")
    assert (await templated.result(seq)).value == "8"
    assert templated.host.spares_used == 1
    await until(lambda: templated.host.spares == 2)


async def test_nothing_waits_after_a_stop(templated: House) -> None:
    templated.set(warm_machines=2, spare_sandboxes=2)
    await templated.start()
    await until(lambda: warm(templated) == 2 and templated.host.spares == 2)
    await templated.worker.drain(30)
    assert templated.host.sandboxes == {}
    assert templated.host.spares == 0


async def test_a_first_snapshot_builds_on_the_template_in_the_store_and_later_ones_do_not(templated: House) -> None:
    await templated.start()
    templates, store = templated.templates, templated.snapshotter
    assert templates is not None
    await until(lambda: templated.ledger.templates.get(PYTHON, ("", "", None))[2] is not None)
    _, key, _ = templated.ledger.templates[PYTHON]
    await answer(templated, "m", "a = 1")
    await templated.worker.sync("m")
    templated.ledger.accept("m", "a = 2")
    templated.worker.deliver("m", None)
    await until(lambda: templated.machine().instruction(1).result is not None)
    await templated.worker.sync("m")
    first, second = sorted(made for made in store.parents if made.startswith("m/"))
    base, later = store.parents[first], store.parents[second]
    assert base is not None
    assert later is not None
    assert (base.manifest_key, base.image) == (key, templates.image(PYTHON))
    assert later.manifest_key == first
