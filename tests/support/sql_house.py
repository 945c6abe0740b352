"""A worker on the ledger that it really has, with everything else in memory."""

from __future__ import annotations

import asyncio

from tests.support.house import PATIENCE_SECONDS, House, until
from tests.support.ledger import ACCOUNT

from torpor_api.ledger import Accepted, InstructionRow, SqlLedger
from torpor_worker.fake_host import FakeSandboxHost


class SqlHouse:
    """A worker on an SQLite ledger, and the API's side of it."""

    def __init__(self, house: House, ledger: SqlLedger, machine: str) -> None:
        self.house = house
        self.ledger = ledger
        self.machine = machine

    @property
    def host(self) -> FakeSandboxHost:
        return self.house.host

    async def start(self) -> None:
        await self.house.start(self.ledger)

    async def send(self, code: str, timeout_seconds: float = PATIENCE_SECONDS) -> int:
        accepted = await self.ledger.accept(ACCOUNT, self.machine, code, timeout_seconds, when_busy="queue")
        assert isinstance(accepted, Accepted)
        self.house.worker.deliver(self.machine, accepted.entry)
        return accepted.seq

    async def row(self, seq: int) -> InstructionRow:
        async with asyncio.timeout(PATIENCE_SECONDS):
            with self.ledger.changes.watch(self.machine) as watch:
                while (row := await self.ledger.instruction(ACCOUNT, self.machine, seq)).result is None:
                    await watch.wait(1)
        return row

    async def run(self, code: str, timeout_seconds: float = PATIENCE_SECONDS) -> InstructionRow:
        return await self.row(await self.send(code, timeout_seconds))

    async def value(self, code: str) -> str | None:
        row = await self.run(code)
        assert row.result is not None
        assert row.result.error is None, row.result.error
        return row.result.value

    async def output(self, seq: int, *, background: bool = False) -> str:
        page = await self.ledger.output(self.machine, seq, background=background)
        return b"".join(record.data for _, record in page.records).decode()

    async def printed(self, seq: int, size: int, *, background: bool = False) -> None:
        async def enough() -> bool:
            return len(await self.output(seq, background=background)) >= size

        await until(enough)

    async def notices(self) -> list[str]:
        return [notice.code for notice in await self.ledger.read_notices(self.machine)]
