"""Several clients at work on several machines, while their server and its sandboxes are killed; a model checks.

What each client does is decided by the seed alone; when the deaths come depends on the host's pace.

Every instruction adds a token of its own to its machine's list, so that the list says what took effect, how often and
in which order. Run it for longer by `scripts/chaos --minutes 30 --seed 7`.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import re
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psutil
from tests.support.server import ServerProcess

ANSWER_SECONDS = 240.0
"""A call that is not answered by then, over all restarts, found a machine that is wedged."""
LOST = (httpx2.TransportError, json.JSONDecodeError)

OPERATIONS = {
    "count": 8,
    "print": 3,
    "long": 3,
    "interrupt": 2,
    "displace": 2,
    "sleep": 2,
    "sync": 2,
    "vanish": 2,
    "renew": 1,
}
DEATHS = {"kill_server": 3, "kill_everything": 2, "kill_sandbox": 3, "stop": 3, "stop_twice": 1}
"""How often each comes; they are methods of `Chaos`."""
LOOP = re.compile(r"for i in range\((\d+)\):\n {4}print\(i\)")
TOKEN = re.compile(r"tokens\.append\((\d+)\)")


@dataclass(eq=False)
class Machine:
    """What clients know of one machine."""

    name: str
    answers: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Results as they were given first, by seq."""
    deleted: bool = False


class Chaos:
    """One run; `problems` is empty if every promise was kept."""

    def __init__(
        self, server: ServerProcess, http: httpx2.Client, seed: int, *, clients: int = 3, machines: int = 3
    ) -> None:
        self.done: Counter[str] = Counter()
        self.problems: list[str] = []
        self._server = server
        self._http = http
        self._seed = seed
        self._clients = clients
        self._over = threading.Event()
        self._tokens = iter(range(sys.maxsize))
        self._machines = [self._new() for _ in range(machines)]

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
            self._watched(self._check, machine)

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
            slot = chance.randrange(len(self._machines))
            operation = chance.choices(list(OPERATIONS), list(OPERATIONS.values()))[0]
            getattr(self, f"_{operation}")(slot)
            self.done[operation] += 1

    def _count(self, slot: int) -> None:
        self._run(slot, "", queue=True)

    def _print(self, slot: int) -> None:
        self._run(slot, "print('x' * 300_000)\n", queue=True)

    def _displace(self, slot: int) -> None:
        self._run(slot, "", interrupt=True)

    def _long(self, slot: int) -> None:
        self._run(slot, "import time\nfor i in range(15):\n    print(i)\n    time.sleep(0.1)\n", queue=True)

    def _interrupt(self, slot: int) -> None:
        self._transition(slot, "interrupt", 200)

    def _sleep(self, slot: int) -> None:
        self._transition(slot, "sleep", 200, 409)

    def _sync(self, slot: int) -> None:
        self._transition(slot, "sync", 200)

    def _vanish(self, slot: int) -> None:
        """Hang up in the middle of a stream: nobody knows whether the code was accepted."""
        path = f"/v1/machine/{self._machines[slot].name}/run"
        headers = {"Accept": "application/x-ndjson"}
        body = {"code": self._code("for i in range(3000):\n    print(i)\n"), "queue": True}
        with suppress(*LOST), self._http.stream("POST", path, json=body, headers=headers, timeout=0.3) as answer:
            next(answer.iter_lines())

    def _renew(self, slot: int) -> None:
        machine = self._machines[slot]
        machine.deleted = True
        answer = self._ask("DELETE", f"/v1/machine/{machine.name}")
        if answer.status_code not in (200, 404):
            self.problems.append(f"deleting {machine.name} was answered with {answer.status_code}: {answer.text}")
        self._machines[slot] = self._new()

    def _new(self) -> Machine:
        machine = Machine(self._ask("POST", "/v1/machine/new", {}).json()["machine_name"])
        self._ask("POST", f"/v1/machine/{machine.name}/run", {"code": "tokens = []", "queue": True})
        return machine

    def _code(self, before: str = "") -> str:
        return f"{before}tokens.append({next(self._tokens)})\nlen(tokens)"

    def _run(self, slot: int, before: str, **flags: bool) -> None:
        machine = self._machines[slot]
        answer = self._ask(
            "POST", f"/v1/machine/{machine.name}/run", {"code": self._code(before), "timeout_seconds": 60, **flags}
        )
        if answer.status_code == 404 and machine.deleted:
            return
        if answer.status_code != 200:
            self.problems.append(f"run on {machine.name} was answered with {answer.status_code}: {answer.text}")
            return
        machine.answers[answer.json()["instruction_seq"]] = answer.json()["result"]

    def _transition(self, slot: int, verb: str, *expected: int) -> None:
        machine = self._machines[slot]
        answer = self._ask("POST", f"/v1/machine/{machine.name}/{verb}", {})
        if answer.status_code not in expected and not (answer.status_code == 404 and machine.deleted):
            self.problems.append(f"{verb} on {machine.name} was answered with {answer.status_code}: {answer.text}")

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx2.Response:
        """Ask until there is an answer, as the same request: the key says so."""
        headers = {"Idempotency-Key": f"{threading.get_ident()} {time.monotonic_ns()}"} if method == "POST" else {}
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            with suppress(*LOST):
                answer = self._http.request(method, path, json=body, headers=headers)
                answer.json()
                if answer.status_code != 503:
                    return answer
            if time.monotonic() > deadline:
                raise AssertionError(f"{method} {path} was not answered within {ANSWER_SECONDS:g} s")
            time.sleep(0.1)

    # Deaths.

    def _kill(self, end: float) -> None:
        chance = random.Random(f"{self._seed} deaths")
        while not self._over.wait(chance.uniform(0.5, 4)) and time.monotonic() < end:
            death = chance.choices(list(DEATHS), list(DEATHS.values()))[0]
            try:
                getattr(self, f"_{death}")(chance)
            finally:
                if not self._server.running:
                    self._server.start()
            self.done[death] += 1
            self._wait_for_answers()

    def _kill_server(self, _: random.Random) -> None:
        self._server.kill()

    def _kill_everything(self, _: random.Random) -> None:
        self._server.kill_all()

    def _kill_sandbox(self, chance: random.Random) -> None:
        if sandboxes := self._server.sandboxes():
            with suppress(psutil.NoSuchProcess):
                chance.choice(sandboxes).kill()

    def _stop(self, _: random.Random) -> None:
        self._server.stop()

    def _stop_twice(self, chance: random.Random) -> None:
        self._server.send(signal.SIGTERM)
        time.sleep(chance.uniform(0, 0.3))
        self._server.send(signal.SIGTERM)
        self._server.wait()

    def _wait_for_answers(self) -> None:
        """Until each machine has answered: an instruction whose process dies twice is undone, whoever killed it."""
        before = [(machine, len(machine.answers)) for machine in self._machines]
        deadline = time.monotonic() + 60
        while not self._over.is_set() and time.monotonic() < deadline:
            if all(machine.deleted or len(machine.answers) > known for machine, known in before):
                return
            time.sleep(0.05)

    # The model.

    def _check(self, machine: Machine) -> None:
        answer = self._ask("POST", f"/v1/machine/{machine.name}/run", {"code": "tokens", "queue": True}).json()
        tokens = ast.literal_eval(answer["result"]["value"])
        self._transition(self._machines.index(machine), "sleep", 200)
        again = self._ask("POST", f"/v1/machine/{machine.name}/run", {"code": "tokens"}).json()
        rows = {row["instruction_seq"]: row for row in self._history(machine)}
        seqs = {int(found[1]): seq for seq, row in rows.items() if (found := TOKEN.search(row["code"]))}
        effects = [seqs[token] for token in tokens]

        def complain(what: str, of: object) -> None:
            if of:
                detail = self._ask("GET", f"/v1/machine/{machine.name}").json()
                self.problems.append(f"{machine.name}: {what}: {of}; {detail}")

        complain("took effect twice", [seq for seq, times in Counter(effects).items() if times > 1])
        complain(
            "took effect in the wrong order", effects if effects != sorted(seqs[token] for token in tokens) else None
        )
        complain("was lost", [seq for seq in seqs.values() if _holds(rows[seq]) and seq not in effects])
        complain("was forgotten by a sleep", None if ast.literal_eval(again["result"]["value"]) == tokens else again)
        for seq, first in machine.answers.items():
            complain("answers otherwise than at first", None if rows[seq]["result"] == first else (first, rows[seq]))
        for seq, row in rows.items():
            if (loop := LOOP.search(row["code"])) and _holds(row):
                lines = self._lines(machine, seq)
                complain(f"output of {seq}", None if lines == [str(i) for i in range(int(loop[1]))] else lines)

    def _history(self, machine: Machine) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        cursor = ""
        while True:
            page = self._ask("GET", f"/v1/machine/{machine.name}/exec?limit=100{cursor}").json()
            rows += page["instructions"]
            if "next_cursor" not in page:
                return rows
            cursor = f"&cursor={page['next_cursor']}"

    def _lines(self, machine: Machine, seq: int) -> list[str]:
        stream = self._http.get(f"/v1/machine/{machine.name}/exec/{seq}/stream-result").text
        messages = [json.loads(line) for line in stream.splitlines() if line.strip()]
        return [message["chunk"]["data"] for message in messages if message["type"] == "output"]


def _holds(row: dict[str, Any]) -> bool:
    """Whether an instruction was answered with a value, and nothing has taken that back with a notice."""
    return "error" not in row["result"] and not row["undone"] and row["ended_by"] is None


def main() -> None:
    """Run it for long; exits with 1 and the problems if there are any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        ServerProcess(Path(folder), idle_seconds=3, quiet_save_seconds=0.5) as server,
        server.client(ANSWER_SECONDS) as http,
    ):
        chaos = Chaos(server, http, asked.seed)
        chaos.run(60 * asked.minutes)
    print(dict(chaos.done))
    sys.exit("\n".join(chaos.problems) or 0)


if __name__ == "__main__":
    main()
