"""E2B's methods that are called on a sandbox, or on the class with a sandbox's id."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

P = ParamSpec("P")
R = TypeVar("R")


class on_either(Generic[P, R]):  # noqa: N801 - a decorator
    """A method that is also called on the class, with a sandbox's id before its arguments.

    The class's `_by_id(method)` makes a function of the method that takes the id.
    """

    def __init__(self, method: Callable[Concatenate[Any, P], R]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    @overload
    def __get__(self, sandbox: None, kind: type[Any]) -> Callable[Concatenate[str, P], R]: ...

    @overload
    def __get__(self, sandbox: object, kind: type[Any]) -> Callable[P, R]: ...

    def __get__(self, sandbox: object, kind: type[Any]) -> Callable[..., R]:
        if sandbox is not None:
            return MethodType(self._method, sandbox)
        named: Callable[..., R] = kind._by_id(self._method)
        return named
