"""Several clients at work on several machines, while what serves them is killed and its store fails; a model checks.

What each client does is decided by the seed alone; when the deaths come depends on the host's pace.

Every instruction adds a token of its own to its machine: to a list, a counter, a file, an array, and through a thread;
some read a file first that was uploaded a moment ago.
So the machine says what took effect, how often and in which order, and the history of the machine says what must have.
After every death each machine is compared with its history. `scripts/chaos` runs it for long (`chaos_rounds`).
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx2
import psutil
from tests.support.chaos_machine import (
    ARRAY,
    LIST,
    LOOP,
    SETUP,
    Machine,
    Rows,
    contradictions,
    deviations,
    has,
    holds,
    tokens_of,
)
from tests.support.chaos_store import MoodyBucket
from tests.support.server import ServerProcess

ANSWER_SECONDS = 240.0
"""A call that is not answered by then, over all restarts, found a machine that is wedged."""
LOST = (httpx2.TransportError, json.JSONDecodeError)

OPERATIONS = {
    "count": 8,
    "print": 3,
    "long": 3,
    "too_long": 1,
    "interrupt": 2,
    "displace": 2,
    "cycle": 12,
    "sync": 2,
    "upload": 3,
    "vanish": 2,
    "renew": 1,
    "fork": 1,
    "roll_back": 1,
}
DEATHS = {
    "kill_server": 3,
    "kill_everything": 2,
    "kill_sandbox": 3,
    "kill_snapshotter": 2,
    "stop": 2,
    "stop_twice": 1,
}
"""How often each comes; they are methods of `Chaos`. In `torpor serve` the worker and the API die with the server."""
TROUBLES = {"fail_sometimes": 2, "be_away": 1}
"""What a bucket does for a while now and then; they are methods of `MoodyBucket`."""
KILLS = ("kill_server", "kill_everything", "kill_sandbox", "kill_snapshotter", "stop_twice")


class Chaos:
    """One run; `problems` is empty if every promise was kept."""

    def __init__(
        self,
        server: ServerProcess,
        http: httpx2.Client,
        seed: int,
        *,
        bucket: MoodyBucket | None = None,
        clients: int = 3,
        machines: int = 3,
    ) -> None:
        self.done: Counter[str] = Counter()
        self.problems: list[str] = []
        self._server = server
        self._http = http
        self._seed = seed
        self._bucket = bucket
        self._clients = clients
        self._over = threading.Event()
        self._passing: set[object] = set()
        self._tokens = iter(range(1, 1 << 60))
        self._machines = [self._new(random.Random(f"{seed} machine {slot}")) for slot in range(machines)]

    def run(self, seconds: float) -> None:
        """Work and kill for so long, then look whether all is as it should be."""
        threads = [
            threading.Thread(target=self._watched, args=(self._client, number)) for number in range(self._clients)
        ]
        for thread in threads:
            thread.start()
        self._watched(self._kill, time.monotonic() + seconds)
        self._over.set()
        for thread in threads:
            thread.join()
        for machine in self._machines:
            self._watched(self._audit, machine)

    def _watched(self, work: Any, argument: Any) -> None:
        try:
            work(argument)
        except Exception as error:  # the thread's owner reads it
            self.problems.append(f"{work.__name__}({argument}): {error!r}")
            self._over.set()

    # Clients.

    def _client(self, number: int) -> None:
        chance = random.Random(f"{self._seed} client {number}")
        while not self._over.is_set():
            # Mostly its own: a machine that all use at once never sleeps.
            slot = number if chance.random() < 0.7 else chance.randrange(len(self._machines))
            operation = chance.choices(list(OPERATIONS), list(OPERATIONS.values()))[0]
            getattr(self, f"_{operation}")(slot, random.Random(chance.random()))
            self.done[operation] += 1

    def _count(self, slot: int, _: random.Random) -> None:
        self._run(self._machines[slot], "", queue=True)

    def _print(self, slot: int, _: random.Random) -> None:
        self._run(self._machines[slot], "print('x' * 300_000)\n", queue=True)

    def _displace(self, slot: int, _: random.Random) -> None:
        self._run(self._machines[slot], "", interrupt=True)

    def _long(self, slot: int, _: random.Random) -> None:
        code = "for i in range(15):\n    print(i)\n    time.sleep(0.1)\n"
        self._run(self._machines[slot], code, queue=True)

    def _too_long(self, slot: int, _: random.Random) -> None:
        self._run(self._machines[slot], "time.sleep(5)\n", queue=True, timeout_seconds=1)

    def _interrupt(self, slot: int, _: random.Random) -> None:
        self._transition(self._machines[slot], "interrupt", 200)

    def _cycle(self, slot: int, _: random.Random) -> None:
        machine = self._machines[slot]
        slept = self._transition(machine, "sleep", 200, 409) == 200
        if self._run(machine, "", queue=True) and slept:
            self.done["slept and woke"] += 1

    def _sync(self, slot: int, _: random.Random) -> None:
        self._transition(self._machines[slot], "sync", 200)

    def _upload(self, slot: int, chance: random.Random) -> None:
        """Write a file over HTTP, and have the machine read it, with deaths in between, but no rollback."""
        machine = self._machines[slot]
        token, data = next(self._tokens), chance.randbytes(chance.choice([10, 50_000, 2_000_000]))
        read = f"digest = hashlib.sha256(open('upload-{token}', 'rb').read()).hexdigest()"
        with machine.still:
            answer = self._ask("PUT", f"/v1/machine/{machine.name}/files/upload-{token}", data)
            if answer.status_code != 200:
                if not (answer.status_code == 404 and machine.deleted):
                    self._complain(machine, f"an upload was answered with {answer.status_code}: {answer.text}")
                return
            body = {"code": f"{read}\nadd({token})\ndigest", "queue": True, "timeout_seconds": 60}
            answer = self._ask("POST", f"/v1/machine/{machine.name}/run", body)
        if answer.status_code == 404 and machine.deleted:
            return
        result = answer.json()["result"]
        machine.answers[answer.json()["instruction_seq"]] = result
        found = result.get("value")
        if found is not None and found != repr(hashlib.sha256(data).hexdigest()):
            self._complain(machine, f"has {found} of {len(data)} bytes that were uploaded")
        # A change that is followed by death after death is given up, and said so.
        if result.get("error", "").startswith("FileNotFoundError") and "changes_lost" not in answer.text:
            self._complain(machine, f"has lost what was uploaded: {answer.text}")

    def _vanish(self, slot: int, _: random.Random) -> None:
        """Hang up in the middle of a stream: nobody knows whether the code was accepted."""
        path = f"/v1/machine/{self._machines[slot].name}/run"
        headers = {"Accept": "application/x-ndjson"}
        body = {"code": self._code("for i in range(3000):\n    print(i)\n"), "queue": True}
        with suppress(*LOST), self._http.stream("POST", path, json=body, headers=headers, timeout=0.3) as answer:
            next(answer.iter_lines(), None)  # a server that stops ends it before the first

    def _renew(self, slot: int, chance: random.Random) -> None:
        self._replace(slot, self._new(chance))

    def _fork(self, slot: int, chance: random.Random) -> None:
        """A fork takes the place of its machine, which is deleted."""
        parent = self._machines[slot]
        with parent.still, self._passage():
            before = self._history(parent)
            known = [seq for seq in list(parent.answers) if seq in before and holds(before[seq])]
            seq = chance.choice(known) if known and chance.random() < 0.5 else None
            at = {} if seq is None else {"at": {"seq": seq}}
            answer = self._ask("POST", f"/v1/machine/{parent.name}/fork", at)
            if answer.status_code == 409 or (answer.status_code == 404 and parent.deleted):
                return
            if answer.status_code != 200:
                self._complain(parent, f"a fork ({at}) was answered with {answer.status_code}: {answer.text}")
                return
            fork = Machine(answer.json()["machines"][0])
            state = has(self._state(fork)[1])
            # What it has executed again is in its own history, and a rollback to its beginning leaves that behind.
            own = tokens_of(self._history(fork))
            fork.base = [token for token in state if token not in own]
            after = self._history(parent)
            until = None if seq is None else seq + 1
            for problem in () if parent.deleted else deviations(state, parent.base, until, before, after):
                self._complain(parent, f"its fork {at}, {fork.name}, {problem}")
        self._replace(slot, fork)

    def _roll_back(self, slot: int, chance: random.Random) -> None:
        machine = self._machines[slot]
        with machine.still:
            listed = self._ask("GET", f"/v1/machine/{machine.name}/snapshots").json().get("snapshots", [])
            usable = [
                row["generation"]
                for row in listed
                if row["quiescent"]
                and (machine.set_up < 0 or (row["seq"] is not None and row["seq"] >= machine.set_up))
            ]
            if not usable:
                return
            body = {"to": {"generation": chance.choice(usable)}, "interrupt": chance.random() < 0.5}
            answer = self._ask("POST", f"/v1/machine/{machine.name}/rollback", body)
            gone = machine.deleted or (answer.status_code == 404 and answer.json()["code"] == "snapshot_not_found")
            if answer.status_code not in (200, 409) and not gone:
                self._complain(machine, f"a rollback was answered with {answer.status_code}: {answer.text}")

    def _replace(self, slot: int, new: Machine) -> None:
        with self._passage():
            machine, self._machines[slot] = self._machines[slot], new
            self._part_from(machine)
        machine.deleted = True
        answer = self._ask("DELETE", f"/v1/machine/{machine.name}")
        if answer.status_code not in (200, 404):
            self._complain(machine, f"its deletion was answered with {answer.status_code}: {answer.text}")

    def _new(self, chance: random.Random) -> Machine:
        with self._passage():
            machine = Machine(self._ask("POST", "/v1/machine/new", {}).json()["machine_name"])
            body = {"code": SETUP.replace("VECTOR", chance.choice([ARRAY, LIST])), "timeout_seconds": 60, "queue": True}
            while True:  # a death in the middle of it undoes it
                answer = self._ask("POST", f"/v1/machine/{machine.name}/run", body).json()
                if "value" in answer["result"]:
                    machine.set_up = answer["instruction_seq"]
                    return machine

    @contextmanager
    def _passage(self) -> Iterator[None]:
        """While it lasts a machine comes or goes that is not among those that are compared after a death."""
        mark = object()
        self._passing.add(mark)
        try:
            yield
        finally:
            self._passing.discard(mark)

    def _code(self, before: str = "") -> str:
        return f"{before}add({next(self._tokens)})\nlen(tokens)"

    def _run(self, machine: Machine, before: str, *, timeout_seconds: float = 60, **flags: bool) -> bool:
        body = {"code": self._code(before), "timeout_seconds": timeout_seconds, **flags}
        answer = self._ask("POST", f"/v1/machine/{machine.name}/run", body)
        if answer.status_code == 404 and machine.deleted:
            return False
        if answer.status_code != 200:
            self._complain(machine, f"run was answered with {answer.status_code}: {answer.text}")
            return False
        machine.answers[answer.json()["instruction_seq"]] = answer.json()["result"]
        return True

    def _transition(self, machine: Machine, verb: str, *expected: int) -> int:
        answer = self._ask("POST", f"/v1/machine/{machine.name}/{verb}", {})
        if answer.status_code not in expected and not (answer.status_code == 404 and machine.deleted):
            self._complain(machine, f"{verb} was answered with {answer.status_code}: {answer.text}")
        return int(answer.status_code)

    def _ask(self, method: str, path: str, body: dict[str, Any] | bytes | None = None) -> httpx2.Response:
        """Ask until there is an answer, as the same request: the key says so."""
        headers = {"Idempotency-Key": f"{threading.get_ident()} {time.monotonic_ns()}"} if method == "POST" else {}
        sent: dict[str, Any] = {"content": body} if isinstance(body, bytes) else {"json": body}
        deadline = time.monotonic() + ANSWER_SECONDS
        last = "nothing"
        while True:
            with suppress(*LOST):
                answer = self._http.request(method, path, headers=headers, **sent)
                answer.json()
                if answer.status_code != 503:
                    return answer
                last = answer.text
            if time.monotonic() > deadline:
                raise AssertionError(f"{method} {path} was not answered within {ANSWER_SECONDS:g} s but with {last}")
            time.sleep(0.1)

    # Deaths.

    def _kill(self, end: float) -> None:
        chance = random.Random(f"{self._seed} deaths")
        while not self._over.wait(chance.uniform(0.5, 3)) and time.monotonic() < end:
            if self._bucket is not None and chance.random() < 0.3:
                trouble = chance.choices(list(TROUBLES), list(TROUBLES.values()))[0]
                self._disturb(self._bucket, trouble, chance)
                continue
            death = chance.choices(list(DEATHS), list(DEATHS.values()))[0]
            try:
                getattr(self, f"_{death}")(chance)
            finally:
                if not self._server.running:
                    self._server.start()
            self.done[death] += 1
            self._compare_all()

    def _disturb(self, bucket: MoodyBucket, trouble: str, chance: random.Random) -> None:
        if trouble == "fail_sometimes":
            bucket.fail_sometimes(random.Random(chance.random()))
        else:
            bucket.be_away()
        self._over.wait(chance.uniform(1, 4))
        self.done[f"bucket: {trouble}"] += 1
        if chance.random() < 0.3:
            self._server.kill()
            self.done["kill_server"] += 1
        bucket.be_well()  # a server does not start without its store
        if not self._server.running:
            self._server.start()
            self._compare_all()

    def _kill_server(self, _: random.Random) -> None:
        self._server.kill()

    def _kill_everything(self, chance: random.Random) -> None:
        self._server.kill_all()
        if chance.random() < 0.5:  # and the disk with the images, so that they come from the store
            shutil.rmtree(self._server.data_dir / "images", ignore_errors=True)

    def _kill_sandbox(self, chance: random.Random) -> None:
        if sandboxes := self._server.sandboxes():
            with suppress(psutil.NoSuchProcess):
                chance.choice(sandboxes).kill()

    def _kill_snapshotter(self, _: random.Random) -> None:
        for child in self._server.process.children():
            with suppress(psutil.NoSuchProcess):
                if any("torpor_snapshotter" in argument for argument in child.cmdline()):
                    child.kill()

    def _stop(self, _: random.Random) -> None:
        self._server.stop()

    def _stop_twice(self, chance: random.Random) -> None:
        self._server.send(signal.SIGTERM)
        time.sleep(chance.uniform(0, 0.3))
        self._server.send(signal.SIGTERM)
        self._server.wait()

    # The model.

    def _compare_all(self) -> None:
        """Compare each machine with its history; its answer also says that it has come back.

        An instruction whose process dies twice is undone, whoever killed it: so no death comes before that.
        """
        passing = set(self._passing)
        while passing & self._passing and not self._over.wait(0.05):
            continue
        for machine in list(self._machines):
            if not machine.deleted and not self._over.is_set():
                self._compare(machine)
                self.done["compared"] += 1

    def _compare(self, machine: Machine) -> str:
        with machine.still:
            before = self._history(machine)
            seq, value = self._state(machine)
            after = self._history(machine)
        if not machine.deleted:
            for problem in (*contradictions(value), *deviations(has(value), machine.base, seq, before, after)):
                self._complain(machine, problem)
        return value

    def _state(self, machine: Machine) -> tuple[int, str]:
        """What the machine says of itself, and the instruction by which it did; others may interrupt that."""
        while True:
            body = {"code": "state()", "queue": True, "timeout_seconds": 60}
            answer = self._ask("POST", f"/v1/machine/{machine.name}/run", body)
            if answer.status_code == 404 and machine.deleted:
                return 0, repr([machine.base, 0, "", [], []])
            if answer.status_code != 200:
                raise AssertionError(f"{machine.name} was asked for its state: {answer.text}")
            result = answer.json()["result"]
            if "value" in result:
                return answer.json()["instruction_seq"], result["value"]
            if result["error"].startswith(("NameError", "AttributeError")):
                raise AssertionError(f"{machine.name} has lost what it was set up with: {result}")

    def _audit(self, machine: Machine) -> None:
        """At the end: is it as it must be, the same after a sleep, and are all answers and their output still there?"""
        value = self._compare(machine)
        self._transition(machine, "sleep", 200)
        if self._state(machine)[1] != value:
            self._complain(machine, "is another after a sleep")
        self._look_back(machine)

    def _part_from(self, machine: Machine) -> None:
        """The same before a machine is deleted; others may be at work on it still, and there may be a death."""
        self._compare(machine)
        self._transition(machine, "sleep", 200, 409)
        self._compare(machine)
        self._look_back(machine)
        self.done["compared before it was deleted"] += 1

    def _look_back(self, machine: Machine) -> None:
        """Compare all answers, as they were first given, and their output with what is there now."""
        answers = dict(machine.answers)
        rows = self._history(machine)
        for seq, first in answers.items():
            if rows[seq]["result"] != first:
                self._complain(machine, f"answered {first} at first, and now {rows[seq]}")
        for seq, row in rows.items():
            if (loop := LOOP.search(row["code"])) and holds(row) and seq in answers:
                lines = self._lines(machine, seq)
                if lines != [str(i) for i in range(int(loop[1]))]:
                    self._complain(machine, f"has as output of {seq}: {lines}")

    def _history(self, machine: Machine) -> Rows:
        rows: list[dict[str, Any]] = []
        cursor = ""
        while True:
            answer = self._ask("GET", f"/v1/machine/{machine.name}/exec?limit=100{cursor}")
            if answer.status_code == 404 and machine.deleted:
                return {}
            page = answer.json()
            rows += page["instructions"]
            if "next_cursor" not in page:
                return {row["instruction_seq"]: row for row in rows}
            cursor = f"&cursor={page['next_cursor']}"

    def _lines(self, machine: Machine, seq: int) -> list[str]:
        """What an instruction printed; a stream that a death cuts off is asked for again."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < deadline:
            with suppress(*LOST):
                stream = self._http.get(f"/v1/machine/{machine.name}/exec/{seq}/stream-result").text
                messages = [json.loads(line) for line in stream.splitlines() if line.strip()]
                if messages and messages[-1].get("type") == "result":
                    return [message["chunk"]["data"] for message in messages if message["type"] == "output"]
            time.sleep(0.1)
        raise AssertionError(f"the output of {seq} of {machine.name} was not to be had within {ANSWER_SECONDS:g} s")

    def _complain(self, machine: Machine, problem: str) -> None:
        detail = self._ask("GET", f"/v1/machine/{machine.name}").text
        self.problems.append(f"{machine.name}: {problem}; {detail}")
