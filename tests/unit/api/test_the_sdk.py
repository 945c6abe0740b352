"""The SDK against the real application: both sides of the wire are ours, and must not drift apart."""

from __future__ import annotations

import asyncio
import io
import math
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

import torpor

if TYPE_CHECKING:
    from tests.support.api import Api

KEY = "alice.0123456789abcdef"
OTHER_KEY = "bob.0123456789abcdef"
ADDING = "print('adding') or a + 5"


@pytest.fixture
async def client(live: Api) -> AsyncIterator[torpor.AsyncClient]:
    async with torpor.AsyncClient(url=str(live.client.base_url), api_key=KEY) as client:
        yield client


async def test_a_machine_is_made_used_looked_at_and_deleted(client: torpor.AsyncClient) -> None:
    assert await client.whoami() == "alice"
    machine = await client.new_machine(tags={"user": "42"}, memory_mb=512, idle_seconds=None, template="data")
    await machine.run("a = 3")
    result = await machine.run(ADDING)
    assert (result.value, result.stdout, result.seq, result.machine_name) == ("8", "adding\n", 1, machine.name)
    detail = await machine.detail()
    assert detail.template == "data"
    assert (detail.tags, detail.memory_mb, detail.idle_seconds) == ({"user": "42"}, 512, None)
    assert [found.name for found in await client.machines(tags={"user": "42"})] == [machine.name]
    assert await client.machines(tags={"user": "43"}) == []
    assert [instruction.code async for instruction in machine.history(limit=1)] == [ADDING]
    assert ADDING in [instruction.code async for instruction in machine.history(limit=2000)], "more than a page has"
    instruction = await machine.instruction(1)
    assert (instruction.code, instruction.state) == (ADDING, "finished")
    assert instruction.events == (torpor.Stdout("adding\n", id="1.7"),)
    await machine.sync()
    await machine.sleep()
    await machine.wake()
    await machine.delete()
    with pytest.raises(torpor.MachineNotFound):
        await machine.detail()


async def test_settings_and_tags_are_changed_and_what_is_not_named_stays(client: torpor.AsyncClient) -> None:
    machine = await client.new_machine(tags={"user": "42", "team": "a"}, durability="instruction", idle_seconds=5)
    assert (await machine.run("1")).value == "1"
    detail = await machine.update(tags={"team": None, "task": "7"}, idle_seconds=None, memory_mb=512)
    assert detail.tags == {"user": "42", "task": "7"}
    assert (detail.idle_seconds, detail.memory_mb, detail.durability) == (None, 512, "instruction")
    detail = await machine.update(durability="interval", recovery="rollback", replay_seconds=7)
    assert (detail.durability, detail.recovery, detail.replay_seconds) == ("interval", "rollback", 7)
    (fork,) = await machine.fork()
    assert (await fork.detail()).durability == "interval"
    with pytest.raises(torpor.InvalidRequest, match="memory_mb"):
        await machine.update(memory_mb=1 << 30)


async def test_a_machine_goes_back_and_forward_again(client: torpor.AsyncClient) -> None:
    machine = await client.new_machine()
    for number in range(3):
        await machine.run(f"a = {number}")
    done = await machine.rollback(seq=1)
    assert (done.left_behind, done.replayed, (await machine.run("a")).value) == ((2,), (0, 1), "1")
    undo = (await machine.detail()).undo
    assert undo is not None
    assert undo == done.undo
    await machine.rollback(generation=undo.generation)
    assert (await machine.run("a")).value == "2"
    kept = await machine.snapshots()
    assert (await machine.pin(kept[0].generation)).pinned
    assert not (await machine.unpin(kept[0].generation)).pinned
    assert [row.seq async for row in machine.history() if row.rolled_back] == [3]
    with pytest.raises(torpor.SnapshotNotFound):
        await machine.pin(99)
    with pytest.raises(torpor.InstructionNotFound):
        await machine.rollback(seq=99)


async def test_forks_begin_with_a_state_of_their_machine(client: torpor.AsyncClient) -> None:
    machine = await client.new_machine()
    for number in range(3):
        await machine.run(f"a = {number}")
    left, right = await machine.fork(seq=1, count=2, tags={"user": "42"})
    [now] = await machine.fork()
    values = [(await fork.run("a")).value for fork in (left, right, now)]
    assert values == ["1", "1", "2"]
    assert {found.name for found in await client.machines(tags={"user": "42"})} == {left.name, right.name}


async def test_a_fork_of_a_busy_machine_says_what_it_lacks(client: torpor.AsyncClient) -> None:
    machine = await client.new_machine(recovery="rollback")
    await machine.run("a = 1")
    await machine.sync()
    stream = machine.stream("print('on', flush=True); hang()")
    async for event in stream:
        if event.type == "stdout":
            break
    forks = await machine.fork()
    assert (forks.generation, forks.lacks) == (0, (1,))
    assert (await forks[0].run("a")).value == "1"
    await machine.interrupt()


async def test_a_crash_on_purpose_is_recovered_and_nothing_else_is_parked(client: torpor.AsyncClient) -> None:
    machine = await client.new_machine(recovery="rollback", replay_seconds=5)
    await machine.run("a = 1")
    await machine.sync()
    await machine.run("a = 2")
    assert await machine.crash()
    assert (await machine.run("a")).value == "1"
    with pytest.raises(torpor.MachineNotParked):
        await machine.recover("retry")
    with pytest.raises(torpor.MachineNotParked):
        await machine.export(io.BytesIO())
    with pytest.raises(torpor.InvalidRequest):
        await machine.recover("skip", generation=1)


async def test_code_on_a_new_machine(client: torpor.AsyncClient) -> None:
    result = await client.run("a = 3")
    assert (await client.machine(result.machine_name).run("a + 5")).value == "8"


async def test_a_stream_tells_which_instruction_it_is_before_anything_happens(client: torpor.AsyncClient) -> None:
    machine = await client.new_machine()
    stream = machine.stream("print('on', flush=True); hang()")
    shown = []
    async for event in stream:
        shown.append(event.type)
        if event.type == "stdout":
            assert stream.seq == 0
            with pytest.raises(torpor.MachineBusy):
                await machine.run("1")
            with pytest.raises(torpor.MachineBusy):
                await machine.run("1", on_output=lambda event: None)
            assert await machine.interrupt(stream.seq)
    assert shown == ["stdout", "error", "result"]
    result = await stream.result()
    assert result.error is not None
    assert (result.error.name, result.stdout) == ("KeyboardInterrupt", "on\n")
    assert not await machine.interrupt()


async def test_an_instruction_is_followed_by_two_at_once(client: torpor.AsyncClient) -> None:
    machine = await client.new_machine()
    first = machine.stream("print('on', flush=True); hang()")
    await anext(aiter(first))
    second = machine.attach(0)
    await anext(aiter(second))
    await machine.interrupt()
    results = await asyncio.gather(first.result(), second.result())
    assert [result.stdout for result in results] == ["on\n", "on\n"]
    assert (await machine.attach(0).result()).error == results[0].error


async def test_an_error_of_the_code_has_its_traceback(client: torpor.AsyncClient) -> None:
    error = (await client.run("1 / 0")).error
    assert error is not None
    assert (error.name, error.message) == ("ZeroDivisionError", "division by zero")
    assert error.traceback


async def test_displays_and_bytes_that_are_no_text_arrive(client: torpor.AsyncClient) -> None:
    machine = await client.new_machine()
    code = (
        """write("display", b'{"data": {"image/png": "aGk=", "text/plain": "<Figure>"}}'); write("stdout", b"\\xff")"""
    )
    for result in (await machine.run(code), await machine.run(code, on_output=lambda event: None)):
        assert (result.png, result.stdout) == (b"hi", "\ufffd")


async def test_a_notice_comes_with_the_next_result(live: Api, client: torpor.AsyncClient) -> None:
    machine = await client.new_machine()
    for streamed in (None, lambda event: None):
        await live.recover(machine.name)
        result = await machine.run("1", on_output=streamed)
        assert "replayed" in [notice.code for notice in result.notices]
        assert (await machine.run("1")).notices == ()


async def test_what_a_program_runs_for_itself_leaves_the_notices(live: Api, client: torpor.AsyncClient) -> None:
    machine = await client.new_machine()
    await live.recover(machine.name)
    for streamed in (None, lambda event: None):
        assert (await machine.run("1", on_output=streamed, notices=False)).notices == ()
        assert (await machine.commands.run("true", on_output=streamed, notices=False)).notices == ()
    background = await machine.commands.start("true")
    assert (await background.wait()).notices == ()
    assert "replayed" in [notice.code for notice in (await background.stream(notices=True).result()).notices]
    assert (await machine.run("1")).notices == ()


async def test_refusals_are_errors_of_their_own(live: Api, client: torpor.AsyncClient) -> None:
    machine = await client.new_machine()
    with pytest.raises(torpor.InvalidRequest, match="code"):
        await machine.run("null \0 byte")
    with pytest.raises(torpor.InvalidRequest, match="timeout_seconds"):
        await machine.run("1", timeout_seconds=10**7)
    assert (await machine.run("1", timeout_seconds=math.inf)).ok
    assert (await machine.commands.run("true", timeout_seconds=math.inf)).exit_code == 0
    with pytest.raises(torpor.InstructionNotFound):
        await machine.attach(7).result()
    async with torpor.AsyncClient(url=client.url, api_key=OTHER_KEY) as other:
        with pytest.raises(torpor.MachineNotFound):
            await other.machine(machine.name).run("1")
    async with torpor.AsyncClient(url=client.url, api_key="alice.wrong-wrong-wrong") as wrong:
        with pytest.raises(torpor.Unauthorized):
            await wrong.whoami()
