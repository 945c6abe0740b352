"""The chaos suite for long: rounds with one seed after the other, recorded in a file, until there is enough of it.

    scripts/chaos --cycles 1000 --kills 200 --record chaos.jsonl

Ended at any time and started again with the same file, it goes on behind the last whole round. Even seeds keep their
machines in a bucket that misbehaves, odd ones in a folder; every other pair of seeds removes the sandboxes that outlive
a server instead of going on with them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from tests.support.chaos import ANSWER_SECONDS, DEATHS, KILLS, OPERATIONS, TROUBLES, Chaos
from tests.support.chaos_store import STORE_URL, MoodyBucket, moody_bucket
from tests.support.server import ServerProcess

SLEPT = "slept and woke"
PARTED = "compared before it was deleted"


def play(seed: int, seconds: float) -> tuple[Counter[str], list[str]]:
    """One round on a server of its own: what was done, and what was wrong."""
    with _store(seed) as (bucket, store), tempfile.TemporaryDirectory() as folder:
        adopts = seed % 4 < 2
        server = ServerProcess(
            Path(folder), idle_seconds=3, quiet_save_seconds=0.5, save_interval_seconds=2, adopt=adopts, **store
        )
        with server, server.client(ANSWER_SECONDS) as http:
            chaos = Chaos(server, http, seed, bucket=bucket)
            chaos.run(seconds)
            problems = list(chaos.problems)
            if server.running:
                server.stop()
            checked = server.torpor("fsck")
            if checked.returncode:
                problems.append(f"fsck: {checked.stdout}{checked.stderr}")
            if problems:
                problems.append(server.log[-20_000:])
    return chaos.done, problems


@contextmanager
def _store(seed: int) -> Iterator[tuple[MoodyBucket | None, dict[str, Any]]]:
    with moody_bucket() if seed % 2 == 0 else nullcontext() as bucket:
        yield bucket, {} if bucket is None else {"store_url": STORE_URL}


def table(rounds: list[dict[str, Any]]) -> str:
    """What was done in all rounds, in Markdown."""
    done: Counter[str] = Counter()
    for one in rounds:
        done.update(one["done"])
    troubles = [f"bucket: {trouble}" for trouble in TROUBLES]
    lines = [
        ("rounds, each with machines of its own", len(rounds)),
        ("minutes", round(sum(one["seconds"] for one in rounds) / 60)),
        ("cycles of sleep and wake, asked for", done[SLEPT]),
        ("kills", sum(done[kill] for kill in KILLS)),
        *((f"— {death}", done[death]) for death in DEATHS),
        *((f"— {trouble}", done[trouble]) for trouble in troubles),
        ("operations of clients", sum(done[operation] for operation in OPERATIONS)),
        *((f"— {operation}", done[operation]) for operation in OPERATIONS),
        ("comparisons of a machine with its history", done["compared"]),
        ("— before it was deleted, with all its answers", done[PARTED]),
        ("rounds with a problem", sum(bool(one["problems"]) for one in rounds)),
    ]
    return "\n".join(["| | |", "|---|---:|", *(f"| {name.replace('_', ' ')} | {number:,} |" for name, number in lines)])


def main() -> None:
    """Go on until there is enough; exits with 1 if any round had a problem."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, help="how long, instead of --cycles and --kills")
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--round-seconds", type=float, default=90)
    parser.add_argument("--seed", type=int, default=1, help="of the first round")
    parser.add_argument("--record", type=Path, help="a file with a line for each round, to go on from")
    asked = parser.parse_args()
    rounds = _recorded(asked.record)
    begun = time.monotonic()
    while not _enough(rounds, asked, time.monotonic() - begun):
        seed = asked.seed + len(rounds)
        started = time.monotonic()
        done, problems = play(seed, asked.round_seconds)
        rounds.append(
            {
                "seed": seed,
                "commit": _commit(),
                "seconds": time.monotonic() - started,
                "done": done,
                "problems": problems,
            }
        )
        if asked.record is not None:
            with asked.record.open("a") as record:
                record.write(json.dumps(rounds[-1]) + "\n")
        sums = Counter[str]()
        for one in rounds:
            sums.update(one["done"])
        kills = sum(sums[kill] for kill in KILLS)
        print(f"seed {seed}: {len(problems)} problems; {sums[SLEPT]} cycles, {kills} kills so far", flush=True)
        for problem in problems:
            print(problem, flush=True)
    print(table(rounds))
    print(f"commits: {', '.join(sorted({one['commit'] for one in rounds}))}")
    sys.exit(any(one["problems"] for one in rounds))


def _recorded(record: Path | None) -> list[dict[str, Any]]:
    if record is None or not record.exists():
        return []
    return [json.loads(line) for line in record.read_text().splitlines() if line.endswith("}")]


def _enough(rounds: list[dict[str, Any]], asked: argparse.Namespace, seconds: float) -> bool:
    if asked.minutes is not None:
        return bool(seconds >= 60 * asked.minutes)
    cycles = sum(one["done"].get(SLEPT, 0) for one in rounds)
    kills = sum(one["done"].get(kill, 0) for one in rounds for kill in KILLS)
    return bool(cycles >= asked.cycles and kills >= asked.kills)


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
