"""The ledger in SQL: one object for the worker's side and the API's."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from torpor_api.ledger.changes import Changes
from torpor_api.ledger.rows import Accepted, Busy, Event, Idempotency, InstructionRow, MachineRow, Notice, OutputPage


class SqlLedger:
    """The truth about accounts, machines, their logs and snapshots. Also implements the worker's `Ledger`.

    Each method is one transaction, durable when it returns. Use it from one event loop.
    """

    changes: Changes
    """`with ledger.changes.watch(machine) as watch:` read, `await watch.wait(timeout_seconds)`, read again."""

    @classmethod
    async def open(cls, url: str, data_dir: Path, *, output_limit_bytes: int = 8 * 1024 * 1024) -> Self:
        """Open, and migrate, the database at `url` (`sqlite:` for `<data_dir>/ledger.sqlite3`, or `sqlite:///path`).

        Raises ValueError for other databases.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Finish what was asked for, and close the database."""

    async def create_account(self, name: str) -> None:
        """Make an account; nothing happens if it exists. Raises ValueError for a name that cannot stand in a token."""

    async def add_key(self, account: str, secret: str) -> None:
        """Let `<account>.<secret>` in from now on; only a hash is stored. Nothing happens if it is there already."""

    async def has_accounts(self) -> bool:
        """Whether any account exists."""
        raise NotImplementedError

    async def authenticate(self, token: str) -> str:
        """The account of an API key `<account>.<secret>`. Raises `Unauthorized`."""
        raise NotImplementedError

    async def create_machine(
        self,
        account: str,
        *,
        tags: dict[str, str],
        memory_mb: int,
        idle_seconds: float | None,
        idempotency: Idempotency | None = None,
    ) -> tuple[str, bool]:
        """Make a machine: its name, and whether it is the earlier work of the idempotency key.

        Raises `IdempotencyKeyReused`.
        """
        raise NotImplementedError

    async def machine(self, account: str, name: str) -> MachineRow:
        """One machine of the account. Raises `MachineNotFound`."""
        raise NotImplementedError

    async def machines(
        self, account: str, *, tags: dict[str, str] | None = None, limit: int | None = None, cursor: str | None = None
    ) -> tuple[list[MachineRow], str | None]:
        """The account's machines that carry all of `tags`, newest first, and the cursor of the next page if any.

        Raises `InvalidRequest` for a cursor that is none.
        """
        raise NotImplementedError

    async def accept(
        self,
        account: str,
        machine: str,
        code: str,
        timeout_seconds: float,
        *,
        when_busy: Literal["refuse", "queue"],
        idempotency: Idempotency | None = None,
    ) -> Accepted | Busy:
        """Write an instruction into the log; it is started at once if the machine is awake and free.

        The same idempotency may have been given to `create_machine` before (`POST /v1/run`).
        Raises `MachineNotFound`, `MachineParked`, `TooManyUnfinished`, `IdempotencyKeyReused`.
        """
        raise NotImplementedError

    async def instruction(self, account: str, machine: str, seq: int) -> InstructionRow:
        """One instruction. Raises `MachineNotFound`, `InstructionNotFound`."""
        raise NotImplementedError

    async def instructions(
        self, account: str, machine: str, *, limit: int | None = None, cursor: str | None = None
    ) -> tuple[list[InstructionRow], str | None]:
        """A machine's history, newest first, and the cursor of the next page if any. Raises `MachineNotFound`."""
        raise NotImplementedError

    async def output(
        self,
        machine: str,
        seq: int,
        *,
        attempt: int | None = None,
        after: int = 0,
        limit_bytes: int = 1024 * 1024,
        background: bool = False,
    ) -> OutputPage:
        """Output of an instruction's newest attempt from byte offset `after` on; with `background`, also what came later.

        `attempt` is the one the reader has read so far. If it was given up before `after`, the page says
        `restarted_from` and begins there; without `attempt` the newest one is read from `after` on, whatever came
        before. Raises `InstructionNotFound`. Ownership is not checked: look the machine up first.
        """
        raise NotImplementedError

    async def read_notices(self, machine: str) -> list[Notice]:
        """Notices that no answer has carried yet, oldest first."""
        raise NotImplementedError

    async def deliver_notices(self, machine: str, up_to: int) -> None:
        """An answer with the notices up to this id was written in full."""

    async def events(self, machine: str, *, limit: int = 100) -> list[Event]:
        """The machine's history of events, newest first."""
        raise NotImplementedError

    async def remember(self, account: str, idempotency: Idempotency, answer: dict[str, Any]) -> None:
        """Keep a request's answer for a repeat. Raises `IdempotencyKeyReused`; the first answer stays."""

    async def recall(self, account: str, idempotency: Idempotency) -> dict[str, Any] | None:
        """The answer of an earlier request with this key, None if there is none. Raises `IdempotencyKeyReused`."""
        raise NotImplementedError

    async def delete_machine(self, account: str, name: str) -> None:
        """Delete a machine's rows and output, and condemn its objects. Raises `MachineNotFound`."""

    async def condemned(self) -> list[str]:
        """Keys of objects that nothing needs any more, oldest first."""
        raise NotImplementedError

    async def forget_condemned(self, keys: list[str]) -> None:
        """These objects are deleted."""

    async def known_keys(self) -> set[str]:
        """Keys of objects that are needed, or may be: committed snapshots and saves that are under way."""
        raise NotImplementedError
