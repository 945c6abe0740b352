"""What is not kept any more is never silently empty."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tests.support.api import Api


@pytest.fixture
async def machine(api: Api, tmp_path: Path) -> str:
    """A machine with two instructions: of the first everything has expired, of the second its output."""
    name = await api.new_machine()
    for word in ("first", "second"):
        await api.client.post(f"/v1/machine/{name}/run", json={"code": f"print({word!r}); 5"})
    with closing(sqlite3.connect(tmp_path / "torpor.db", timeout=60)) as database, database:
        database.execute("UPDATE entries SET code = '', value = NULL, expired = 1 WHERE seq = 0")
        database.execute("UPDATE entries SET output_expired = 1 WHERE seq IS NOT NULL")
        database.execute("DELETE FROM output_pieces")
    return name


async def test_history_marks_what_has_expired(api: Api, machine: str) -> None:
    second, first = (await api.client.get(f"/v1/machine/{machine}/exec")).json()["instructions"]
    assert (first["expired"], first["result"], first["state"]) == (True, None, "finished")
    assert (second["expired"], second["output_expired"], second["result"]["value"]) == (False, True, "5")
    one = (await api.client.get(f"/v1/machine/{machine}/exec/0")).json()
    assert (one["expired"], [event["code"] for event in one["events"]]) == (True, ["output_expired"])


@pytest.mark.parametrize("what", ["result", "stream-result", "events"])
async def test_an_instruction_that_has_expired_is_gone_and_nobody_waits_for_it(
    api: Api, machine: str, what: str
) -> None:
    answer = await api.client.get(f"/v1/machine/{machine}/exec/0/{what}")
    assert (answer.status_code, answer.json()["code"]) == (410, "instruction_expired")


async def test_streams_say_that_output_has_expired_and_end_with_the_result(api: Api, machine: str) -> None:
    events = await api.client.get(f"/v1/machine/{machine}/exec/1/events")
    kinds = [(event["type"], event.get("code")) for event in map(json.loads, events.text.splitlines())]
    assert kinds == [("notice", "output_expired"), ("result", None)]
    stream = await api.client.get(f"/v1/machine/{machine}/exec/1/stream-result")
    output, result = map(json.loads, stream.text.splitlines())
    assert "not kept any more" in output["chunk"]["data"]
    assert result["result"]["value"] == "5"
