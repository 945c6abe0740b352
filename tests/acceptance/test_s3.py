"""A server whose machines sleep in an S3 bucket."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.s3_server import BUCKET, S3Server, s3_server
from tests.support.server import ServerFailed, ServerProcess

pytestmark = pytest.mark.acceptance


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    with s3_server() as bucket:
        for name, value in bucket.environment().items():
            monkeypatch.setenv(name, value)
        yield bucket


def run(server: ServerProcess, machine: str, code: str) -> Any:
    with server.client() as client:
        answer = client.post(f"/v1/machine/{machine}/run", json={"code": code})
    assert answer.is_success, answer.text
    return answer.json()["result"]["value"]


def test_a_machine_comes_back_from_the_bucket_alone_and_no_other_server_takes_it(
    bucket: S3Server, tmp_path: Path
) -> None:
    url = f"s3://{BUCKET}/machines"
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with ServerProcess(tmp_path / "one", store_url=url) as server:
        with server.client() as client:
            machine = client.post("/v1/machine/new", json={}).json()["machine_name"]
        run(server, machine, "a = 3")
        server.stop()
        shutil.rmtree(server.data_dir / "images")
        with pytest.raises(ServerFailed, match="another server's"):
            ServerProcess(tmp_path / "two", store_url=url).start()
        server.start()
        assert run(server, machine, "a + 5") == "8"
