"""A power cut at any step of a worker's work."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar, cast

T = TypeVar("T")


class PowerCut(Exception):
    """Nothing works any more."""


class Power:
    """Counts the calls through everything plugged into it; from call `cut_at` on none is made, or none is answered."""

    def __init__(self, cut_at: int | None = None, *, answer_lost: bool = False) -> None:
        """`answer_lost`: the call at which the power is cut takes effect, but nobody hears of it."""
        self.calls = 0
        self.cut = asyncio.Event()
        self._cut_at = cut_at
        self._answer_lost = answer_lost

    def plug(self, thing: T) -> T:
        """The same thing, on this power."""
        return cast("T", _Plugged(thing, self))

    async def call(self, work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Make a call if there is power."""
        if self.cut.is_set():
            raise PowerCut
        self.calls += 1
        if self.calls == self._cut_at:
            if self._answer_lost:
                await work(*arguments, **named)
            self.cut.set()
            raise PowerCut
        return await work(*arguments, **named)


class _Plugged:
    def __init__(self, thing: object, power: Power) -> None:
        self._thing = thing
        self._power = power

    def __getattr__(self, name: str) -> Callable[..., Any]:
        work = getattr(self._thing, name)
        return lambda *arguments, **named: self._power.call(work, *arguments, **named)
