"""E2B's lists, which are fetched page by page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from .e2b_options import ApiParams, check_options
from .e2b_sandbox_models import PagesBase, SandboxInfo, SnapshotInfo

if TYPE_CHECKING:
    from typing_extensions import Unpack

T = TypeVar("T")


class Pages(PagesBase[T]):
    """A list. All of it is fetched with its first page."""

    def __init__(self, fetch: Callable[[], list[T]], limit: int | None) -> None:
        super().__init__(limit)
        self._fetch = fetch

    def next_items(self, **options: Unpack[ApiParams]) -> list[T]:
        """The next page. Raises `SandboxException` if there is none."""
        check_options(options)
        self._check()
        return self._page(self._fetch() if self._left is None else self._left)


class AsyncPages(PagesBase[T]):
    """A list. All of it is fetched with its first page."""

    def __init__(self, fetch: Callable[[], Awaitable[list[T]]], limit: int | None) -> None:
        super().__init__(limit)
        self._fetch = fetch

    async def next_items(self, **options: Unpack[ApiParams]) -> list[T]:
        """The next page. Raises `SandboxException` if there is none."""
        check_options(options)
        self._check()
        return self._page(await self._fetch() if self._left is None else self._left)


class SandboxPaginator(Pages[SandboxInfo]):
    """Sandboxes."""


class SnapshotPaginator(Pages[SnapshotInfo]):
    """Snapshots of a sandbox."""


class AsyncSandboxPaginator(AsyncPages[SandboxInfo]):
    """Sandboxes."""


class AsyncSnapshotPaginator(AsyncPages[SnapshotInfo]):
    """Snapshots of a sandbox."""
