"""So many things at once, of which no account has more than its share while it takes long."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class FairSlots:
    """Slots. Whoever has the fewest is next, then whoever has waited longest."""

    def __init__(self, slots: int, of_one: int) -> None:
        """`of_one` is how many one account may have, though others be free."""
        self._free = slots
        self._of_one = of_one
        self._taken: Counter[str] = Counter()
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []

    @asynccontextmanager
    async def one(self, account: str) -> AsyncIterator[None]:
        """Have a slot while this lasts."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((account, turn))
        self._give()
        try:
            await turn
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self._free += 1
                self._taken[account] -= 1
                if not self._taken[account]:
                    del self._taken[account]
            else:
                self._waiting.remove((account, turn))
            self._give()

    def _give(self) -> None:
        while self._free:
            waiting = [each for each in self._waiting if not each[1].done() and self._taken[each[0]] < self._of_one]
            if not waiting:
                return
            account, turn = first = min(waiting, key=lambda each: self._taken[each[0]])
            self._waiting.remove(first)
            self._free -= 1
            self._taken[account] += 1
            turn.set_result(None)
