"""A power cut at any step of a worker's work."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar, cast

T = TypeVar("T")


class PowerCut(Exception):
    """Nothing works any more."""


class Power:
    """Counts the calls through everything plugged into it; call `cut_at` takes effect, but nobody hears of it.

    None is made after that. So what is left is the same as if the power had been cut just before the next call.
    """

    def __init__(self, cut_at: int | None = None) -> None:
        self.calls = 0
        self.cut = asyncio.Event()
        self._cut_at = cut_at

    def plug(self, thing: T) -> T:
        """The same thing, on this power."""
        return cast("T", _Plugged(thing, self))

    async def call(self, work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Make a call if there is power."""
        if self.cut.is_set():
            raise PowerCut
        self.calls += 1
        if self.calls == self._cut_at:
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
