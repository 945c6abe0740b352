"""An API key shows nowhere: in no `repr`, in no error, in no log, whatever goes wrong."""

from __future__ import annotations

import logging
import pickle
import traceback
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from pydantic import SecretStr
from tests.support.stub_server import API_KEY, Cut, Refuse, StubServer

import torpor
from torpor._config import load_config

SECRET = API_KEY.partition(".")[2]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG):
        yield caplog


def reachable(thing: object, depth: int = 4) -> Iterator[object]:
    """A thing of ours and whatever hangs on it; others' things (the HTTP client) by their own `repr` only."""
    yield thing
    if depth and type(thing).__module__.startswith("torpor.") and hasattr(thing, "__dict__"):
        for value in vars(thing).values():
            yield from reachable(value, depth - 1)


def shown(error: BaseException) -> str:
    """All that a report of an error shows, with the local variables of every frame."""
    report = traceback.TracebackException.from_exception(error, capture_locals=True)
    return "".join(report.format()) + repr(error) + repr(vars(error))


def test_no_repr_shows_a_key(stub: StubServer, client: torpor.Client, async_client: torpor.AsyncClient) -> None:
    machine = client.new_machine()
    machine.run("a")
    things = [client, async_client, machine, machine.execution(0), machine.stream("a"), async_client.machine("mine")]
    for thing in [part for whole in things for part in reachable(whole)]:
        for form in (repr(thing), str(thing)):
            assert SECRET not in form, type(thing)
    assert SECRET not in repr(load_config(stub.url, API_KEY))
    transport = httpx2.MockTransport(
        lambda request: httpx2.Response(200, json={"id": "1", "name": "laptop", "api_key": API_KEY})
    )
    made = torpor.Client(url="http://elsewhere", api_key="a.b", transport=transport).new_key("laptop")
    assert isinstance(made.api_key, SecretStr)
    assert SECRET not in repr(made) + str(made)


def test_no_error_shows_a_key(stub: StubServer, log: pytest.LogCaptureFixture) -> None:
    policy = torpor.RetryPolicy(total_seconds=0.05, first_contact_seconds=0.05, first_delay_seconds=0.01)
    errors: list[torpor.TorporError] = []
    with torpor.Client(url=stub.url, api_key=API_KEY, retry=policy) as client:
        machine = client.new_machine()
        for fault in (Cut(), Refuse(503, "shutting_down"), Refuse(409, "machine_busy"), Refuse(418, "new")):
            stub.faults.clear()
            stub.faults.extend([fault] * 100)
            for work in (lambda: machine.run("a"), lambda: machine.stream("a").result(), lambda: client.new_key("a")):
                with pytest.raises(torpor.TorporError) as raised:
                    work()
                errors.append(raised.value)
        stub.faults.clear()
    with (
        torpor.Client(url="http://127.0.0.1:9", api_key=API_KEY, retry=policy) as client,
        pytest.raises(torpor.ServerUnreachable) as unreachable,
    ):
        client.whoami()
    errors.append(unreachable.value)
    assert len(errors) == 13
    for error in errors:
        # The frames of this test, and of the HTTP library beneath, hold the key itself: what is ours is looked at.
        assert SECRET not in "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
        assert SECRET.encode() not in pickle.dumps(error)
    assert log.records
    assert SECRET not in log.text


def test_frames_of_ours_hold_no_key_that_a_report_would_show(stub: StubServer, client: torpor.Client) -> None:
    stub.faults.append(Refuse(409, "machine_busy"))
    with pytest.raises(torpor.MachineBusy) as raised:
        client.run("a")
    assert SECRET not in shown(raised.value)


def test_no_log_shows_a_key(stub: StubServer, client: torpor.Client, log: pytest.LogCaptureFixture) -> None:
    machine = client.new_machine()
    machine.run("a")
    machine.stream("a").result()
    assert log.records
    assert SECRET not in log.text
    assert all(SECRET not in repr(record.args) for record in log.records)


def test_a_file_of_settings_that_cannot_be_read_is_not_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "torpor").mkdir()
    (tmp_path / "torpor" / "config.toml").write_text(f'api_key = "{API_KEY}\nurl = 3')
    with pytest.raises(torpor.ConfigError) as raised:
        torpor.Client()
    assert SECRET not in "".join(traceback.format_exception(raised.value))
