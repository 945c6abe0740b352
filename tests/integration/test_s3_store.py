"""The contract of stores on a real S3 server, and what S3 adds: parts, ranges, lost answers, wrong settings."""

import asyncio
import itertools
import os
import re
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import boto3
import pytest
from tests.support.fault_proxy import FaultProxy, HttpFault
from tests.support.s3_server import BUCKET, S3Server, s3_server
from tests.support.store_contract import StoreContract, body, broken_body, keys

from torpor_snapshotter.faulty_store import Fault, FaultyStore
from torpor_snapshotter.s3_bucket import Patience
from torpor_snapshotter.s3_store import S3Store
from torpor_snapshotter.s3_write import PART_BYTES
from torpor_snapshotter.store import AlreadyStored, NotStored, ObjectStore, StoreError
from torpor_snapshotter.store_url import S3Location

pytestmark = pytest.mark.integration

LARGE = os.urandom(2 * PART_BYTES + 12345)
_numbers = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def location(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Location:
    """A prefix of its own, with the server in the environment."""
    use(server, monkeypatch)
    return S3Location(BUCKET, f"test/{next(_numbers)}/")


@pytest.fixture
async def store(location: S3Location) -> AsyncIterator[S3Store]:
    async with opened(location) as store:
        yield store


@pytest.fixture
async def proxy(server: S3Server, location: S3Location, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FaultProxy]:
    """Between the server and stores that are opened after it."""
    async with FaultProxy(server.address) as proxy:
        use(server, monkeypatch, proxy.url)
        yield proxy


@pytest.fixture
async def far_store(proxy: FaultProxy, location: S3Location) -> AsyncIterator[S3Store]:
    """A store behind the proxy."""
    async with opened(location) as store:
        yield store


@pytest.fixture
async def impatient_store(proxy: FaultProxy, location: S3Location) -> AsyncIterator[S3Store]:
    """The same, which waits for half a second."""
    async with opened(location, Patience(read_seconds=0.5)) as store:
        yield store


def use(server: S3Server, monkeypatch: pytest.MonkeyPatch, endpoint: str | None = None) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in server.environment(endpoint).items():
        monkeypatch.setenv(name, value)


@asynccontextmanager
async def opened(location: S3Location, patience: Patience | None = None) -> AsyncIterator[S3Store]:
    store = S3Store(location, patience)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
def client(server: S3Server) -> Iterator[Any]:
    """Somebody else's client, past the proxy."""
    client = boto3.client(
        "s3",
        endpoint_url=server.url,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name="us-east-1",
    )
    yield client
    client.close()


@pytest.fixture(scope="module", autouse=True)
def bucket(server: S3Server) -> None:
    (server.objects / BUCKET).mkdir(exist_ok=True)


def large_body() -> AsyncIterator[bytes]:
    return body(*(LARGE[at : at + 1_000_000] for at in range(0, len(LARGE), 1_000_000)))


class TestS3Store(StoreContract):
    """The contract, by the store itself and by one around it."""

    @pytest.fixture(params=["S3", "faulty without a fault"])
    def store(self, request: pytest.FixtureRequest, store: S3Store) -> ObjectStore:
        return store if request.param == "S3" else FaultyStore(store)


async def test_a_large_object_goes_in_parts_and_is_read_in_ranges(store: S3Store) -> None:
    assert await store.put_new("large", large_body()) == len(LARGE)
    assert await store.read("large") == LARGE
    assert await store.read("large", PART_BYTES - 7, PART_BYTES + 99) == LARGE[PART_BYTES - 7 : 2 * PART_BYTES + 92]
    assert await store.read("large", len(LARGE) - 5, 99) == LARGE[-5:]


@pytest.mark.parametrize("size_bytes", [PART_BYTES, 2 * PART_BYTES])
async def test_an_object_of_whole_parts_has_no_more(store: S3Store, size_bytes: int) -> None:
    await store.put_new("even", body(LARGE[:size_bytes]))
    assert await store.read("even") == LARGE[:size_bytes]


async def test_a_large_object_is_written_once(store: S3Store, client: Any) -> None:
    results = await asyncio.gather(*(store.put_new("large", large_body()) for _ in range(3)), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["AlreadyStored", "AlreadyStored", "int"], results
    with pytest.raises(AlreadyStored):
        await store.put_new("large", large_body())
    assert await store.read("large") == LARGE
    assert uploads(client) == []


async def test_a_large_body_that_breaks_leaves_nothing(store: S3Store, client: Any) -> None:
    with pytest.raises(ConnectionResetError):
        await store.put_new("large", broken_body(LARGE))
    assert await keys(store) == []
    assert uploads(client) == []


async def test_a_large_write_that_is_cancelled_leaves_nothing(store: S3Store, client: Any) -> None:
    faulty = FaultyStore(store, Fault.SLOW)
    writing = asyncio.create_task(faulty.put_new("large", body(LARGE, b"more")))
    await asyncio.wait_for(faulty.waiting.wait(), 60)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert await keys(store) == []
    assert uploads(client) == []


def uploads(client: Any) -> list[Any]:
    return list(client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []))


async def test_a_long_list_comes_whole(store: S3Store, server: S3Server, location: S3Location) -> None:
    folder = server.objects / BUCKET / location.prefix
    folder.mkdir(parents=True)
    for number in range(1100):  # more than S3 gives at once; as files, since that is quicker
        (folder / f"{number:04}").touch()
    (folder / "no key").touch()
    assert await keys(store) == [f"{number:04}" for number in range(1100)]


@pytest.mark.parametrize("fault", [HttpFault.ERROR, HttpFault.CUT, HttpFault.LOST_ANSWER])
@pytest.mark.parametrize("request_line", ["PUT", "GET", "HEAD", "POST .*uploads", "POST .*uploadId", "DELETE"])
async def test_a_request_that_fails_once_is_made_again(
    far_store: S3Store, proxy: FaultProxy, fault: HttpFault, request_line: str
) -> None:
    proxy.fail_first(request_line, fault)
    if request_line.startswith(("POST", "HEAD")):
        await far_store.put_new("key", large_body())
        assert await far_store.read("key", 0, 10) == LARGE[:10]
    else:
        await far_store.put_new("key", body(b"small"))
        assert await far_store.read("key") == b"small"
    await far_store.delete("key")
    assert await keys(far_store) == []
    assert sum(line.startswith(request_line.split(maxsplit=1)[0]) for line in proxy.seen) > 1


async def test_a_read_that_breaks_off_is_made_again(far_store: S3Store, proxy: FaultProxy) -> None:
    await far_store.put_new("key", large_body())
    proxy.fail_first("GET", HttpFault.HALF_ANSWER, times=3)
    assert await far_store.read("key") == LARGE


@pytest.mark.parametrize("fault", [HttpFault.HANG, HttpFault.LATE_ANSWER])
@pytest.mark.parametrize("request_line", ["PUT", "GET", "POST .*uploadId", "DELETE"])
async def test_a_request_that_is_not_answered_in_time_is_made_again(
    impatient_store: S3Store, proxy: FaultProxy, fault: HttpFault, request_line: str
) -> None:
    proxy.fail_first(request_line, fault)
    written = LARGE if request_line.startswith("POST") else b"small"
    async with asyncio.timeout(15):
        await impatient_store.put_new("key", body(written))
        assert await impatient_store.read("key") == written
        await impatient_store.delete("key")
    assert await keys(impatient_store) == []
    assert sum(re.search(request_line, line) is not None for line in proxy.seen) > 1


async def test_an_answer_that_stops_in_its_middle_is_asked_for_again(
    impatient_store: S3Store, proxy: FaultProxy
) -> None:
    await impatient_store.put_new("key", large_body())
    proxy.fail_first("GET", HttpFault.STALL, times=2)
    async with asyncio.timeout(15):
        assert await impatient_store.read("key") == LARGE


async def test_an_answer_that_comes_slowly_is_waited_for(impatient_store: S3Store, proxy: FaultProxy) -> None:
    await impatient_store.put_new("key", body(LARGE[:100_000]))
    proxy.fail_first("GET", HttpFault.TRICKLE)
    started = time.monotonic()
    assert await impatient_store.read("key") == LARGE[:100_000]
    assert time.monotonic() - started > 1
    assert sum(line.startswith("GET") for line in proxy.seen) == 1


async def test_a_server_that_hangs_is_told_in_a_sentence(impatient_store: S3Store, proxy: FaultProxy) -> None:
    proxy.choose = lambda request: HttpFault.HANG
    async with asyncio.timeout(60):
        for failing in (impatient_store.put_new("key", body(b"x")), impatient_store.read("key")):
            with pytest.raises(StoreError, match="does not answer in time"):
                await failing


async def test_the_ranges_of_a_large_object_are_read_at_once(far_store: S3Store, proxy: FaultProxy) -> None:
    await far_store.put_new("key", large_body())
    gets = itertools.count()
    others = asyncio.Barrier(4)

    async def wait_for_others(request: str) -> None:
        if request.startswith("GET") and next(gets):  # the first says how large the object is
            await others.wait()

    proxy.before = wait_for_others
    async with asyncio.timeout(30):
        assert await far_store.read("key") == LARGE
    assert next(gets) == 5


@pytest.mark.parametrize("fault", [HttpFault.ERROR, HttpFault.CUT])
async def test_a_server_that_goes_on_failing_is_told_in_a_sentence(
    far_store: S3Store, proxy: FaultProxy, fault: HttpFault
) -> None:
    proxy.choose = lambda request: fault
    for failing in (far_store.put_new("key", body(b"x")), far_store.read("key"), far_store.delete("key")):
        with pytest.raises(StoreError, match=r"see (its log|that it is up)"):
            await failing
    proxy.choose = lambda request: None
    assert await keys(far_store) == []


async def test_a_writer_whose_upload_was_aborted_is_not_told_that_it_succeeded(
    far_store: S3Store, proxy: FaultProxy, client: Any, location: S3Location
) -> None:
    """versitygw 1.8 answers 200 to it, if the key has an object by then."""

    def choose(request: str) -> None:
        if request.startswith("POST") and "uploadId" in request:
            for upload in uploads(client):
                client.abort_multipart_upload(Bucket=BUCKET, Key=upload["Key"], UploadId=upload["UploadId"])
            client.put_object(Bucket=BUCKET, Key=f"{location.prefix}key", Body=b"another's")

    proxy.choose = choose
    with pytest.raises(AlreadyStored):
        await far_store.put_new("key", large_body())
    assert await far_store.read("key") == b"another's"


async def test_an_acknowledged_object_that_is_not_there_is_told(far_store: S3Store, proxy: FaultProxy) -> None:
    proxy.choose = lambda request: HttpFault.SUCCESS if request.startswith("PUT") else None
    await far_store.put_new("lost", body(b"small"))
    with pytest.raises(NotStored):
        await far_store.read("lost")
    with pytest.raises(StoreError, match="acknowledges objects"):
        await far_store.check()


@pytest.mark.parametrize(
    ("request_line", "what"), [("PUT .*/check-[^?]* ", "objects be"), ("POST .*uploadId", "multi")]
)
async def test_a_server_that_does_not_heed_conditions_is_no_store(
    far_store: S3Store, proxy: FaultProxy, client: Any, request_line: str, what: str
) -> None:
    def choose(request: str) -> None:
        if re.search(request_line, request):  # what is there does not count
            client.delete_object(Bucket=BUCKET, Key=request.split()[1].partition("?")[0].removeprefix(f"/{BUCKET}/"))

    proxy.choose = choose
    with pytest.raises(StoreError, match=f"{what}.*does not heed If-None-Match"):
        await far_store.check()


async def test_a_check_aborts_uploads_that_dead_processes_left(
    store: S3Store, server: S3Server, client: Any, location: S3Location
) -> None:
    key = f"{location.prefix}key"
    old, new = (client.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"] for _ in range(2))
    for folder in server.objects.rglob(old):
        os.utime(folder, (1, 1))
    await store.check()
    assert [upload["UploadId"] for upload in uploads(client)] == [new]
    client.abort_multipart_upload(Bucket=BUCKET, Key=key, UploadId=new)


async def test_wrong_settings_are_sentences(
    server: S3Server, location: S3Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    await expect_check_to_say(S3Location("no-such-bucket", ""), "There is no bucket for s3://no-such-bucket")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secrets.token_hex(16))
    said = await expect_check_to_say(location, "does not accept the credentials")
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in said
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    await expect_check_to_say(location, "credentials .*AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    await expect_check_to_say(location, "There are no credentials .*AWS_ACCESS_KEY_ID")
    use(server, monkeypatch, "http://127.0.0.1:1")
    await expect_check_to_say(location, "127.0.0.1:1.*AWS_ENDPOINT_URL_S3")
    use(server, monkeypatch, "no URL")
    await expect_check_to_say(location, "AWS_ENDPOINT_URL_S3")


async def expect_check_to_say(location: S3Location, pattern: str) -> str:
    async with opened(location) as store:
        with pytest.raises(StoreError, match=pattern) as said:
            await store.check()
    return str(said.value)
