from __future__ import annotations

import re

import pytest
from tests.support.ledger import ACCOUNT, new_machine, ran

from torpor_api.errors import InvalidRequest, MachineNotFound
from torpor_api.ledger import MachineSettings, SqlLedger
from torpor_worker.ledger import Hold


async def test_a_new_machine_is_asleep_and_has_a_name_of_16_letters_and_digits(ledger: SqlLedger) -> None:
    name, repeated = await ledger.create_machine(
        ACCOUNT, MachineSettings(tags={"a": "b"}, memory_mb=512, idle_seconds=1.5)
    )

    machine = await ledger.machine(ACCOUNT, name)
    assert re.fullmatch("[a-z0-9]{16}", name)
    assert not repeated
    assert (machine.state, machine.tags, machine.memory_mb, machine.idle_seconds) == ("asleep", {"a": "b"}, 512, 1.5)
    assert (machine.generation, machine.stored_bytes, machine.has_pending_instruction) == (None, 0, False)
    assert machine.last_used_at == machine.created_at


async def test_use_of_a_machine_shows(ledger: SqlLedger, hold: Hold) -> None:
    await ran(ledger, hold)

    machine = await ledger.machine(ACCOUNT, hold.machine)
    assert machine.last_used_at == (await ledger.instruction(ACCOUNT, hold.machine, 0)).finished_at


async def test_machines_are_listed_newest_first_by_all_of_the_tags(ledger: SqlLedger) -> None:
    names = [
        (await ledger.create_machine(ACCOUNT, MachineSettings(tags=tags, memory_mb=512, idle_seconds=None)))[0]
        for tags in ({"a": "1"}, {"a": "1", "b": "2"}, {"a": "2", "b": "2"})
    ]

    async def listed(**tags: str) -> list[str]:
        return [machine.name for machine in (await ledger.machines(ACCOUNT, tags=tags))[0]]

    assert await listed() == names[::-1]
    assert await listed(a="1") == [names[1], names[0]]
    assert await listed(a="1", b="2") == [names[1]]
    assert await listed(c="") == []


async def test_a_list_goes_on_at_its_cursor(ledger: SqlLedger) -> None:
    names = [await new_machine(ledger) for _ in range(3)]

    page, cursor = await ledger.machines(ACCOUNT, limit=2)
    rest, end = await ledger.machines(ACCOUNT, limit=2, cursor=cursor)
    assert [machine.name for machine in page + rest] == names[::-1]
    assert end is None
    with pytest.raises(InvalidRequest):
        await ledger.machines(ACCOUNT, cursor="-1")


async def test_a_deleted_machine_is_gone(ledger: SqlLedger, hold: Hold) -> None:
    await ran(ledger, hold)
    await ledger.delete_machine(ACCOUNT, hold.machine)

    with pytest.raises(MachineNotFound):
        await ledger.machine(ACCOUNT, hold.machine)
    assert (await ledger.machines(ACCOUNT))[0] == []
