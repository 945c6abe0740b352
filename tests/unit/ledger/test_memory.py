from __future__ import annotations

import psutil
from tests.support.ledger import ACCOUNT, accepted, result, stdout

from torpor_api.ledger import SqlLedger
from torpor_worker.ledger import Hold

MEBIBYTE = 1024 * 1024


async def test_thousands_of_instructions_leave_the_process_no_larger(ledger: SqlLedger, hold: Hold) -> None:
    async def run() -> None:
        answer = await accepted(ledger, hold.machine, "print('hello')")
        await ledger.finish(hold, answer.seq, 1, result("x" * 500), output=[stdout("hello\n" * 20)])
        await ledger.outcome(ACCOUNT, hold.machine, answer.seq)

    process = psutil.Process()
    for _ in range(300):
        await run()
    before = process.memory_info().rss
    for _ in range(1200):
        await run()

    assert process.memory_info().rss - before < 2 * MEBIBYTE
