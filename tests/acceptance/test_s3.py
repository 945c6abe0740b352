"""A server whose machines sleep in an S3 bucket."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.support.s3_server import BUCKET, S3Server, s3_server
from tests.support.server import ServerFailed, ServerProcess
from tests.support.small_runtime import install_small_runtime

pytestmark = pytest.mark.acceptance


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    with s3_server() as bucket:
        for name, value in bucket.environment().items():
            monkeypatch.setenv(name, value)
        yield bucket


URL = f"s3://{BUCKET}/machines"


@pytest.fixture
def server(bucket: S3Server, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that keeps its machines in the bucket."""
    with ServerProcess(tmp_path, store_url=URL) as server:
        yield server


def post(server: ServerProcess, path: str, **body: object) -> httpx2.Response:
    with server.client() as client:
        return client.post(f"/v1/machine/{path}", json=body)


def new_machine(server: ServerProcess) -> str:
    name: str = post(server, "new").json()["machine_name"]
    return name


def run(server: ServerProcess, machine: str, code: str) -> Any:
    answer = post(server, f"{machine}/run", code=code)
    assert answer.is_success, answer.text
    return answer.json()["result"]["value"]


def test_a_machine_comes_back_from_the_bucket_alone(server: ServerProcess) -> None:
    machine = new_machine(server)
    run(server, machine, "a = 3")
    server.stop()
    for folder in ("images", "cache"):
        shutil.rmtree(server.data_dir / folder)
    server.start()
    assert run(server, machine, "a + 5") == "8"


def test_a_machine_whose_image_is_gone_wakes_from_what_was_kept_of_the_bucket(
    server: ServerProcess, bucket: S3Server
) -> None:
    machine = new_machine(server)
    run(server, machine, "a = 3")
    server.stop()
    shutil.rmtree(server.data_dir / "images")
    server.start()
    bucket.stop()
    try:
        assert run(server, machine, "a + 5") == "8"
    finally:
        bucket.start()


def test_twenty_forks_come_from_the_bucket_when_their_machine_is_gone(server: ServerProcess) -> None:
    machine = new_machine(server)
    run(server, machine, "a = [3]")
    forks = post(server, f"{machine}/fork", count=20).json()["machines"]
    assert len(set(forks)) == 20
    with server.client() as client:
        assert client.delete(f"/v1/machine/{machine}").is_success
    server.stop()
    for folder in ("images", "cache"):
        shutil.rmtree(server.data_dir / folder)
    server.start()
    for number in (0, 19):
        assert run(server, forks[number], f"a.append({number}) or a") == f"[3, {number}]"


def test_a_new_host_gets_the_runtime_from_the_bucket_too(bucket: S3Server, tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, store_url=URL, own_runtimes=True, keep_runtimes=True)
    install_small_runtime(server.data_dir)
    with server.unstarted():
        server.start()
        machine = new_machine(server)
        run(server, machine, "a = 3")
        deadline = time.monotonic() + 120
        while "A runtime was put into the store" not in server.log:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        server.stop()
        for folder in ("runtimes", "images", "templates", "cache"):
            shutil.rmtree(server.data_dir / folder)
        server.start()
        assert run(server, machine, "a + 5") == "8"


def test_a_second_server_does_not_take_the_store_of_the_first(server: ServerProcess, tmp_path: Path) -> None:
    machine = new_machine(server)
    run(server, machine, "a = 3")
    (tmp_path / "second").mkdir()
    second = ServerProcess(tmp_path / "second", store_url=URL)
    with pytest.raises(ServerFailed, match=r"another server's.*--store-url"):
        second.start()
    assert post(server, f"{machine}/sleep").is_success
    assert run(server, machine, "a + 5") == "8"


def test_while_the_bucket_is_away_machines_stay_awake_and_lose_nothing(server: ServerProcess, bucket: S3Server) -> None:
    machine = new_machine(server)
    bucket.stop()
    run(server, machine, "a = 3")
    refused = post(server, f"{machine}/sleep")
    assert refused.json()["code"] == "save_failed"
    assert "AWS_ENDPOINT_URL_S3" in refused.text
    assert run(server, machine, "a + 5") == "8"
    bucket.start()
    assert post(server, f"{machine}/sync").is_success
    server.kill_all()
    for folder in ("images", "cache"):
        shutil.rmtree(server.data_dir / folder)
    server.start()
    assert run(server, machine, "a + 6") == "9"
