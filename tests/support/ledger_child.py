"""A process that runs instructions on several machines and prints what was acknowledged, until it is killed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.support.ledger import ACCOUNT, accepted, awake, new_machine, result, saved, stdout

from torpor_api.ledger import SqlLedger


async def use(ledger: SqlLedger) -> None:
    """Run instructions on one new machine for ever; every third output is large enough for a file."""
    hold = await awake(ledger, await new_machine(ledger))
    head = seq = None
    while True:
        seq = (await accepted(ledger, hold.machine, "code", told=seq is None or seq % 2 == 0)).seq
        print("accepted", hold.machine, seq, flush=True)
        size_bytes = 70_000 if seq % 3 == 0 else 10
        await ledger.append_output(hold, seq, 1, [stdout(b"s" * size_bytes)], background=False)
        await ledger.finish(hold, seq, 1, result(str(seq)), output=[stdout(b"e" * size_bytes)])
        print("finished", hold.machine, seq, flush=True)
        if seq % 5 == 0:
            head = (await saved(ledger, hold, head, seq + 1)).generation
            print("saved", hold.machine, head, flush=True)


async def main(folder: Path) -> None:
    """Open a ledger and use four machines at once."""
    ledger = await SqlLedger.open("sqlite:", folder)
    await ledger.create_account(ACCOUNT)
    await ledger.open_session("worker")
    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(use(ledger), name=f"machine {number}")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
