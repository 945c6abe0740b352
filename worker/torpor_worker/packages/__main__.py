"""One request for packages, in a process of its own that may be killed: JSON in, JSON out."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torpor_worker.packages.asked import PackageRefused, Rules, Wanted
from torpor_worker.packages.index import PackageIndex, make_client
from torpor_worker.packages.resolution import Resolution
from torpor_worker.packages.wheel_cache import WheelCache

MEMORY_BYTES = 2 << 30
CPU_SECONDS = 120
NICENESS = 10


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """The wheels to hand in, or why there are none."""
    fields = request["rules"]
    rules = Rules(fields["index"], frozenset(fields["allow"]), fields["limit_bytes"])
    cache = WheelCache(Path(request["cache"]))
    try:
        wanted = Wanted.of_fields(request["wanted"])
        with make_client() as client:
            wheels = Resolution(wanted, rules, PackageIndex(fields["index"], client), cache).wheels()
    except PackageRefused as refused:
        return {"refused": str(refused)}
    return {"wheels": [asdict(wheel) for wheel in wheels]}


def main() -> None:
    """Answer one request on standard input."""
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    request = json.load(sys.stdin)
    signal.alarm(int(request["seconds"]) + 1)  # whoever has asked may have been killed: then nobody else ends this
    json.dump(answer(request), sys.stdout)


if __name__ == "__main__":
    main()
