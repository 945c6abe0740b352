"""Files in real machines: both ways, over sleep and death, and whatever they are."""

import asyncio
import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterator

import pytest
from tests.support.remote_files import Files, data_of
from tests.support.remote_machine import Machine, until
from tests.support.server import ServerProcess
from tests.support.transfers import transfer, watched

pytestmark = pytest.mark.acceptance

MEBIBYTE = 1 << 20


@pytest.fixture(scope="module")
def only_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server")) as process:
        yield process


@pytest.fixture
def server(only_server: ServerProcess) -> ServerProcess:
    if not only_server.running:
        only_server.start()
    return only_server


@pytest.fixture
def machine(server: ServerProcess) -> Iterator[Machine]:
    made = Machine(server)
    yield made
    with server.client() as client:
        assert client.delete(f"/v1/machine/{made.name}").is_success


@pytest.fixture
def files(server: ServerProcess, machine: Machine) -> Files:
    return Files(server, machine.name)


@pytest.fixture(params=[ServerProcess.kill, ServerProcess.kill_all], ids=["server", "server and sandboxes"])
def crash(request: pytest.FixtureRequest, server: ServerProcess) -> Callable[[], None]:
    def kill_and_start() -> None:
        request.param(server)
        server.start()

    return kill_and_start


def test_what_is_written_is_there_for_code_and_the_other_way_round(machine: Machine, files: Files) -> None:
    files.put("data/größe.csv", b"a,b\n1,2\n")
    assert machine.run("open('data/größe.csv').read()") == repr("a,b\n1,2\n")
    machine.run("import pathlib; _ = pathlib.Path('out.bin').write_bytes(bytes(range(256)) * 1000)")
    assert files.get("out.bin") == bytes(range(256)) * 1000
    assert machine.run("import os; os.stat('data/größe.csv').st_uid, oct(os.stat('data/größe.csv').st_mode)") == (
        "(1000, '0o100644')"
    )
    assert files.names("data") == ["größe.csv"]


def test_a_file_survives_sleep_and_death_with_its_digest(
    crash: Callable[[], None], machine: Machine, files: Files
) -> None:
    first, second = data_of(1, 20 * MEBIBYTE), data_of(2, 5 * MEBIBYTE)
    files.put("first", first)
    machine.sleep()
    assert hashlib.sha256(files.get("first")).digest() == hashlib.sha256(first).digest()
    files.put("second", second)
    crash()  # right after the answer
    assert hashlib.sha256(files.get("second")).digest() == hashlib.sha256(second).digest()
    files.delete("first")
    crash()
    assert files.names() == ["second"]
    assert machine.run("import hashlib; hashlib.sha256(open('second', 'rb').read()).hexdigest()") == repr(
        hashlib.sha256(second).hexdigest()
    )


def test_writes_and_code_come_back_in_their_order_after_a_crash(
    crash: Callable[[], None], machine: Machine, files: Files
) -> None:
    for number in range(4):
        files.put("n", str(number).encode())
        assert machine.run(f"seen{number} = open('n').read(); seen{number}") == repr(str(number))
    crash()
    assert machine.run("seen0 + seen1 + seen2 + seen3 + open('n').read()") == "'01233'"


def test_files_are_at_hand_while_code_never_ends_and_after_a_crash_too(
    crash: Callable[[], None], machine: Machine, files: Files
) -> None:
    seq = machine.begin(
        "import os\nwhile not os.path.exists('go'): pass\nprint('gone')\nwhile not os.path.exists('stop'): pass\n7"
    )
    until(lambda: machine.detail()["has_pending_instruction"], "the code to run")
    files.put("go", b"")
    assert files.names() == ["go"]
    crash()
    files.put("stop", b"")
    assert machine.result(seq)["value"] == "7"
    assert set(files.names()) == {"go", "stop"}


def test_whatever_is_no_file_is_refused_and_the_machine_lives(machine: Machine, files: Files) -> None:
    machine.run(
        "import os, socket\nos.mkfifo('fifo')\nos.mkdir('sub')\nos.symlink('loop', 'loop')\n"
        "s = socket.socket(socket.AF_UNIX); s.bind('sock')\nopen('secret', 'w').close(); os.chmod('secret', 0)"
    )
    assert files.refused("GET", "fifo") == "not_a_file"
    assert files.refused("PUT", "fifo", b"1") == "not_a_file"
    assert files.refused("GET", "sock") == "not_a_file"
    assert files.refused("GET", "/dev/zero") == "not_a_file"
    assert files.refused("GET", "sub") == "is_a_folder"
    assert files.refused("GET", "loop") == "invalid_path"
    assert files.refused("GET", "secret") == "permission_denied"
    assert files.refused("GET", "/proc/1/environ") == "permission_denied"
    assert files.refused("PUT", "/etc/passwd", b"") == "permission_denied"
    assert files.refused("PUT", "/usr/bin/new", b"") == "permission_denied"
    assert files.refused("DELETE", "/home/user", recursive="true") == "permission_denied"
    assert b"root:" in files.get("../../etc/passwd")  # the sandbox's own
    assert machine.run("1 + 1") == "2"


def test_a_full_disk_is_told_and_what_was_there_stays(machine: Machine, files: Files) -> None:
    files.put("kept", b"old")
    machine.run("f = open('big', 'wb'); _ = f.write(bytes(150 << 20)); f.close()")
    assert files.refused("PUT", "kept", data_of(1, 20 * MEBIBYTE)) == "disk_full"
    assert files.get("kept") == b"old"
    assert sorted(files.names()) == ["big", "kept"]
    machine.run("import os; os.remove('big')")
    files.put("kept", data_of(1, 20 * MEBIBYTE))


def test_a_file_larger_than_the_machines_memory_is_refused_and_nothing_dies(server: ServerProcess) -> None:
    with server.client() as client:
        name = client.post("/v1/machine/new", json={"memory_mb": 256}).json()["machine_name"]
        client.post(f"/v1/machine/{name}/run", json={"code": "a = 3"})
        files = Files(server, name)
        assert files.refused("PUT", "/tmp/big", bytes(250 * MEBIBYTE)) == "disk_full"
        assert client.post(f"/v1/machine/{name}/run", json={"code": "a"}).json()["result"]["value"] == "3"
        client.delete(f"/v1/machine/{name}")


def test_a_folder_goes_out_and_in_as_an_archive_and_survives(
    crash: Callable[[], None], machine: Machine, files: Files
) -> None:
    machine.run(
        "import os, pathlib\nfor n in range(50):\n    p = pathlib.Path(f'tree/{n % 5}/{n}')\n"
        "    p.parent.mkdir(parents=True, exist_ok=True)\n    _ = p.write_bytes(bytes([n]) * 1000 * n)\n"
        "os.chmod('tree/0/0', 0o755); os.symlink('0', 'tree/0/link'); os.mkfifo('tree/fifo')"
    )
    archive = files.get("tree", archive="tar")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert len([member for member in tar if member.isfile()]) == 50
    files.put("copy", archive, archive="tar")
    crash()
    assert machine.run(
        "import subprocess; subprocess.run(['diff', '-r', 'tree', 'copy'], capture_output=True, text=True).stdout"
    ) == repr("Only in tree: fifo\n")
    assert machine.run("oct(os.stat('copy/0/0').st_mode), os.readlink('copy/0/link')") == "('0o100755', '0')"


def test_a_user_who_kills_every_process_of_his_breaks_nothing(machine: Machine, files: Files) -> None:
    data = data_of(3, 30 * MEBIBYTE)
    seq = machine.begin(
        "import os, signal, time\nme = os.getpid()\nend = time.time() + 4\nn = 0\nwhile time.time() < end:\n"
        "    for p in os.listdir('/proc'):\n        if p.isdigit() and int(p) not in (1, me):\n"
        "            try: os.kill(int(p), signal.SIGKILL); n += 1\n            except OSError: pass\nn"
    )
    until(lambda: machine.detail()["has_pending_instruction"], "the code to run")
    assert {files.refused("PUT", "f", data) for _ in range(3)} == {"file_failed"}
    machine.result(seq)
    until(lambda: files.names() == [], "what was prepared to be removed, by processes that were killed as well")
    files.put("f", data)
    assert files.get("f") == data


def test_64_mb_and_fifty_streams_at_once_and_the_servers_memory_stays(server: ServerProcess) -> None:
    with server.client() as client:
        machines = [client.post("/v1/machine/new").json()["machine_name"] for _ in range(5)]
    with watched(server) as memory:
        asyncio.run(transfer(server, machines[:1], 1, 64 * MEBIBYTE))
        alone_mb = memory.grown_mb
        asyncio.run(transfer(server, machines, 50, 2 * MEBIBYTE))
    print(f"the server's memory grew by {alone_mb:.1f} MiB for one stream, by {memory.grown_mb:.1f} MiB for fifty")
    assert alone_mb < 24
    assert memory.grown_mb < 64
    with server.client() as client:
        for name in machines:
            client.delete(f"/v1/machine/{name}")


def test_what_cut_off_uploads_have_left_is_gone_after_a_start(server: ServerProcess, files: Files) -> None:
    folder = server.data_dir / "files"
    (folder / "0123").write_bytes(b"of a server that was killed in the middle of an upload")
    files.put("f", b"1")
    server.kill()
    server.start()
    until(lambda: "0123" not in os.listdir(folder), "the leftover to be removed")
    assert files.get("f") == b"1"
