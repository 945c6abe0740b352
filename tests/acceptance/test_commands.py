"""Shell commands beside cells on a real server: over a sleep, a stop, and every kind of crash."""

import threading
from collections.abc import Iterator

import pytest
from tests.support.remote_commands import Commands
from tests.support.remote_machine import Machine, until
from tests.support.server import ServerProcess

pytestmark = pytest.mark.acceptance

COUNT = "i=0; while [ $i -lt {end} ]; do echo $i; i=$((i+1)); sleep 0.02; done"


@pytest.fixture(scope="module")
def only_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server"), save_interval_seconds=2) as process:
        yield process


@pytest.fixture
def server(only_server: ServerProcess) -> ServerProcess:
    """One server for all of these tests."""
    if not only_server.running:
        only_server.start()
    return only_server


@pytest.fixture
def machine(server: ServerProcess) -> Iterator[Machine]:
    made = Machine(server)
    yield made
    if server.running:
        with server.client() as client:
            assert client.delete(f"/v1/machine/{made.name}").is_success


@pytest.fixture
def commands(server: ServerProcess, machine: Machine) -> Commands:
    return Commands(server, machine.name)


def numbers(end: int) -> str:
    """What `COUNT` says."""
    return "".join(f"{number}\n" for number in range(end))


def test_a_command_is_answered_with_all_of_it_in_one_round_trip(machine: Machine, commands: Commands) -> None:
    answer = commands.run("echo out; echo err >&2; exit 3", env={"A": "1"})

    assert (answer["exit_code"], answer["signal"], answer["timed_out"]) == (3, None, False)
    assert (answer["stdout"], answer["stderr"]) == ("out\n", "err\n")
    assert answer["error"] == "CommandFailed: exit status 3"
    assert answer["timings"]["runtime_ms"] >= 0
    assert commands.run(["cat"], stdin="given")["stdout"] == "given"
    assert commands.run("pwd; whoami", cwd="/tmp")["stdout"] == "/tmp\nuser\n"


def test_a_command_runs_while_a_cell_does_and_both_share_their_files(machine: Machine, commands: Commands) -> None:
    cell = machine.begin("import time, pathlib\nwhile not pathlib.Path('/tmp/go').exists(): pass\n'gone'")
    assert commands.run("echo beside; touch /tmp/go")["stdout"] == "beside\n"
    assert machine.result(cell)["value"] == "'gone'"


def test_a_command_that_takes_too_long_is_ended_however_it_resists(machine: Machine, commands: Commands) -> None:
    answer = commands.run("trap '' TERM; echo up; while :; do sleep 1; done", timeout_seconds=1)

    assert answer["timed_out"]
    assert answer["signal"] == "SIGKILL"
    assert answer["error"] == "Timed out after 1 s"
    assert answer["stdout"] == "up\n"
    assert commands.run("echo next")["exit_code"] == 0


def test_a_command_in_the_background_is_fed_signalled_and_listed(machine: Machine, commands: Commands) -> None:
    seq = commands.start("while read line; do echo got $line; done; echo done")
    commands.post(f"/{seq}/stdin", {"data": "one\n"})
    commands.until_said(seq, "got one\n")
    commands.post(f"/{seq}/stdin", {"data": "dHdvCg==", "encoding": "base64", "close": True})
    assert commands.followed(seq)[-1]["exit_code"] == 0
    assert commands.said(seq) == "got one\ngot two\ndone\n"

    other = commands.start("exec sleep 1000")
    assert [command["seq"] for command in commands.listed()] == [other, seq]
    commands.post(f"/{other}/signal", {"signal": "TERM"})
    assert commands.followed(other)[-1]["signal"] == "SIGTERM"


def test_a_terminal_is_had_over_http(machine: Machine, commands: Commands) -> None:
    seq = commands.start("stty size; read line; stty size; exit 7", pty={"rows": 11, "columns": 22})
    commands.until_said(seq, "11 22\r\n")
    commands.post(f"/{seq}/resize", {"rows": 33, "columns": 44})
    commands.post(f"/{seq}/stdin", {"data": "\n"})
    assert commands.followed(seq)[-1]["exit_code"] == 7
    assert commands.said(seq).endswith("33 44\r\n")


def test_many_at_once_are_refused_clearly_and_harm_nobody(machine: Machine, server: ServerProcess) -> None:
    refused: list[dict[str, str]] = []
    accepted: list[int] = []

    def start() -> None:
        with server.client() as client:
            for _ in range(30):
                body = {"command": "exec sleep 1000", "background": True}
                answer = client.post(f"/v1/machine/{machine.name}/commands", json=body)
                (accepted.append(answer.json()["seq"]) if answer.is_success else refused.append(answer.json()))

    threads = [threading.Thread(target=start) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(accepted) == 64
    assert {refusal["code"] for refusal in refused} == {"too_many_commands"}
    assert machine.run("1 + 1") == "2"


def test_a_command_in_the_background_sleeps_with_its_machine_and_goes_on(
    server: ServerProcess, machine: Machine, commands: Commands
) -> None:
    seq = commands.start(COUNT.format(end=300))
    for turn in (20, 120):
        commands.until_said(seq, f"\n{turn}\n")
        with server.client() as client:
            assert client.post(f"/v1/machine/{machine.name}/sleep").is_success
        assert not server.holds(machine.name)
        assert commands.one(seq)["state"] == "running"
        assert machine.run("'awake'") == "'awake'"
    assert commands.followed(seq)[-1]["exit_code"] == 0
    assert commands.said(seq) == numbers(300)
    assert machine.detail()["notices"] == []


def test_commands_go_on_over_a_stop_and_a_start(server: ServerProcess, machine: Machine, commands: Commands) -> None:
    background = commands.start(COUNT.format(end=200))
    commands.until_said(background, "\n20\n")
    answers: list[int] = []
    waiting = threading.Thread(target=lambda: answers.append(foreground_of(server, machine)))
    waiting.start()
    until(lambda: len(commands.listed()) == 2 and "5\n" in commands.said(1), "both to run")
    server.restart()
    waiting.join()

    assert commands.followed(1)[-1]["exit_code"] == 0  # one that somebody waited for wakes its machine again
    assert commands.said(1) == numbers(150)
    assert commands.followed(background)[-1]["exit_code"] == 0
    assert commands.said(background) == numbers(200)
    assert machine.detail()["notices"] == []


def foreground_of(server: ServerProcess, machine: Machine) -> int:
    with server.client() as client:
        body = {"command": COUNT.format(end=150), "timeout_seconds": 60}
        return client.post(f"/v1/machine/{machine.name}/commands", json=body).status_code


def test_commands_go_on_over_a_kill_of_the_server(server: ServerProcess, machine: Machine, commands: Commands) -> None:
    seq = commands.start(COUNT.format(end=400), stdin_open=True)
    for turn in (20, 150):
        commands.until_said(seq, f"\n{turn}\n")
        server.kill()
        server.start()
    assert commands.followed(seq)[-1]["exit_code"] == 0
    assert commands.said(seq) == numbers(400)
    assert commands.one(seq)["attempt"] == 1
    assert machine.detail()["notices"] == []


def test_commands_go_on_from_their_last_save_over_a_kill_of_everything(
    server: ServerProcess, machine: Machine, commands: Commands
) -> None:
    seq = commands.start("i=0; while [ ! -e /tmp/stop ]; do echo $i; i=$((i+1)); sleep 0.02; done")
    commands.until_said(seq, "\n20\n")
    machine.run("a = 3")
    until(lambda: machine.detail()["generation"] is not None, "a save")
    saved = commands.said(seq)
    until(lambda: len(commands.said(seq)) > len(saved), "what no save has")
    server.kill_all()
    server.start()

    assert machine.run("open('/tmp/stop', 'w').close(); a + 5") == "8"
    assert commands.followed(seq)[-1]["exit_code"] == 0
    said = commands.said(seq)
    assert said == numbers(said.count("\n"))
    assert said.startswith("0\n")
    assert commands.one(seq)["attempt"] == 2


def test_what_was_never_saved_runs_again_in_its_order(
    server: ServerProcess, machine: Machine, commands: Commands
) -> None:
    server.set(quiet_save_seconds=3600, save_interval_seconds=3600)
    server.restart()
    try:
        machine.run("a = 1")
        commands.run("echo 41 > /tmp/number")
        machine.run("a += int(open('/tmp/number').read())")
        seq = commands.start("echo started; exec sleep 1000")
        commands.until_said(seq, "started\n")
        server.kill_all()
        server.start()
        assert machine.run("a") == "42"
        notices = {notice["code"]: notice for notice in machine.detail()["notices"]}
        assert notices["replayed"]["seqs"] == [0, 1, 2]
        assert notices["ran_again"]["seqs"] == [seq]
        commands.post(f"/{seq}/signal", {"signal": "KILL"})
        assert commands.followed(seq)[-1]["signal"] == "SIGKILL"
    finally:
        server.set(quiet_save_seconds=2, save_interval_seconds=2)


def test_a_fork_has_the_commands_that_run_in_it(server: ServerProcess, machine: Machine, commands: Commands) -> None:
    seq = commands.start(COUNT.format(end=300))
    commands.until_said(seq, "\n20\n")
    with server.client() as client:
        answer = client.post(f"/v1/machine/{machine.name}/fork", json={})
        assert answer.is_success, answer.text
        fork = Machine(server, answer.json()["machines"][0])
    assert fork.run("'awake'") == "'awake'"
    assert machine.run("'awake'") == "'awake'"
    forked = Commands(server, fork.name)

    assert commands.followed(seq)[-1]["exit_code"] == 0
    assert commands.said(seq) == numbers(300)
    assert forked.followed(seq)[-1]["exit_code"] == 0
    said = forked.said(seq)
    assert said
    assert numbers(300).endswith(said)
