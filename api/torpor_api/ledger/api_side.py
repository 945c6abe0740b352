"""What the API asks of the truth: accounts, machines, acceptance, history, output, and objects to delete."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

from sqlalchemy import Connection, select

from torpor_api.errors import Unauthorized
from torpor_api.ledger import (
    accounts,
    entries,
    expiry,
    history,
    idempotency,
    inputs,
    machines,
    notices,
    saves,
    schema,
)
from torpor_api.ledger.authenticated import Authenticated
from torpor_api.ledger.expiry import LogRetention
from torpor_api.ledger.outcome import outcome
from torpor_api.ledger.output_page import read_page
from torpor_api.ledger.readers import Readers
from torpor_api.ledger.rows import (
    Accepted,
    ApiKey,
    Busy,
    Event,
    Idempotency,
    InstructionRow,
    MachineRow,
    MachineSettings,
    Notice,
    Outcome,
    OutputPage,
)
from torpor_api.ledger.segments import Segments
from torpor_api.ledger.writer import Writer
from torpor_worker.command import CommandInput
from torpor_worker.stdin import Stdin


class ApiSide:
    """Each method is one transaction, durable when it returns."""

    _writer: Writer
    _readers: Readers
    _segments: Segments
    _authenticated: Authenticated

    async def create_account(self, name: str) -> None:
        """Make an account; nothing happens if it exists. Raises ValueError for a name that cannot stand in a token."""
        await self._writer.run(lambda connection: accounts.create(connection, name))

    async def add_key(self, account: str, secret: str, name: str = "") -> None:
        """Let `<account>.<secret>` in from now on; only a hash is stored. Nothing happens if it is there already.

        Raises ValueError if there is no such account.
        """
        await self._writer.run(lambda connection: accounts.add_key(connection, account, secret, name))

    async def keys(self, account: str) -> list[ApiKey]:
        """The account's API keys, oldest first."""
        return await self._readers.run(lambda connection: accounts.list_keys(connection, account))

    async def revoke_key(self, account: str, key: str) -> None:
        """Let the key with this id in no longer, from now on. Raises `KeyNotFound`, `LastKey`."""
        await self._writer.run(lambda connection: accounts.revoke_key(connection, account, key))
        self._authenticated.forget()

    async def has_accounts(self) -> bool:
        """Whether any account exists."""
        return await self._readers.run(accounts.any_exist)

    async def authenticate(self, token: str) -> str:
        """The account of an API key `<account>.<secret>`. Raises `Unauthorized`."""
        known = self._authenticated.account_of(token)
        if known is not None:
            return known
        account, dot, secret = token.partition(".")
        if not dot or not accounts.NAME.fullmatch(account):
            raise Unauthorized
        if not await self._readers.run(lambda connection: accounts.opens(connection, account, secret)):
            raise Unauthorized
        self._authenticated.remember(token, account)
        return account

    async def create_machine(
        self,
        account: str,
        settings: MachineSettings,
        *,
        idempotency: Idempotency | None = None,
        alias: str | None = None,
    ) -> tuple[str, bool]:
        """Make a machine: its name, and whether it was there, made under this idempotency key or called so.

        Raises `IdempotencyKeyReused`.
        """
        return await self._writer.run(
            lambda connection: machines.create(connection, account, settings, idempotency=idempotency, alias=alias)
        )

    async def machine_of_alias(self, account: str, alias: str) -> str:
        """The name of the account's machine that it calls so. Raises `MachineNotFound`."""
        return await self._readers.run(lambda connection: machines.of_alias(connection, account, alias))

    async def change_machine(
        self,
        account: str,
        name: str,
        *,
        settings: Mapping[str, Any],
        tags: Mapping[str, str | None],
        in_use_bytes: int = 0,
    ) -> None:
        """Change those settings that are given, and tags: None takes one away.

        Settings are `memory_mb`, `idle_seconds`, `durability`, `recovery`, `replay_seconds`, and `alias` (None: none).
        `in_use_bytes` is the memory that it uses now. Raises `MachineNotFound`, `AliasTaken`, and `InvalidRequest` for
        less memory than it uses or was saved with, or too many tags.
        """
        await self._writer.run(
            lambda connection: machines.change(connection, account, name, settings, tags, in_use_bytes=in_use_bytes),
            touches=name,
        )

    async def machine(self, account: str, name: str) -> MachineRow:
        """One machine of the account. Raises `MachineNotFound`."""
        return await self._readers.run(lambda connection: machines.one(connection, account, name))

    async def machines(
        self, account: str, *, tags: dict[str, str] | None = None, limit: int | None = None, cursor: str | None = None
    ) -> tuple[list[MachineRow], str | None]:
        """The account's machines that carry all of `tags`, newest first, and the cursor of the next page if any.

        Raises `InvalidRequest` for a cursor that is none.
        """
        return await self._readers.run(
            lambda connection: machines.newest_first(connection, account, tags=tags or {}, limit=limit, cursor=cursor)
        )

    async def accept(
        self,
        account: str,
        machine: str,
        code: str,
        timeout_seconds: float,
        *,
        when_busy: Literal["refuse", "queue"],
        idempotency: Idempotency | None = None,
        told: bool = True,
        stdin: Stdin | None = None,
    ) -> Accepted | Busy:
        """Write an instruction into the log; it is started at once if the machine is awake and free.

        `told` is whether anybody hears of it before its result, or its output. If not, it may run while it is on its
        way to the disk: it is in the log if this process dies, and gone with the machine's process if the host does.
        Raises `MachineNotFound`, `MachineParked`, `TooManyUnfinished`, `IdempotencyKeyReused`.
        """
        return await self._writer.run(
            lambda connection: entries.accept(
                connection,
                account,
                machine,
                code,
                timeout_seconds,
                when_busy=when_busy,
                idempotency=idempotency,
                stdin=stdin,
            ),
            touches=machine,
            early=not told,
        )

    async def accept_on_new(
        self,
        account: str,
        settings: MachineSettings,
        code: str,
        timeout_seconds: float,
        *,
        idempotency: Idempotency | None = None,
        told: bool = True,
        stdin: Stdin | None = None,
    ) -> tuple[str, Accepted]:
        """Make a machine with an instruction in its log: its name, and the instruction as `accept` tells of it.

        Raises `IdempotencyKeyReused`.
        """

        def work(connection: Connection) -> tuple[str, Accepted]:
            name, _ = machines.create(connection, account, settings, idempotency=idempotency)
            accepted = entries.accept(
                connection,
                account,
                name,
                code,
                timeout_seconds,
                when_busy="queue",
                idempotency=idempotency,
                stdin=stdin,
            )
            if isinstance(accepted, Busy):
                raise AssertionError("one that may wait is not refused")
            return name, accepted

        return await self._writer.run(work, early=not told)

    async def accept_input(
        self, account: str, machine: str, seq: int, piece: CommandInput, *, idempotency: Idempotency | None = None
    ) -> Accepted:
        """Write input for an instruction that runs into the log; the `seq` of what is accepted is the instruction's.

        Raises `MachineNotFound`, `MachineParked`, `RuntimeQuarantined`, `IdempotencyKeyReused`, `InstructionNotFound`,
        `InstructionNotRunning`, `StdinClosed`, `StdinFull`.
        """
        return await self._writer.run(
            lambda connection: inputs.accept(connection, account, machine, seq, piece, idempotency=idempotency),
            touches=machine,
        )

    async def instruction(self, account: str, machine: str, seq: int) -> InstructionRow:
        """One instruction. Raises `MachineNotFound`, `InstructionNotFound`."""
        return await self._readers.run(lambda connection: history.one(connection, account, machine, seq))

    async def outcome(self, account: str, machine: str, seq: int) -> Outcome:
        """All that the answer to an instruction needs, in one read. Raises as `instruction` does."""

        def work(connection: Connection) -> Outcome:
            return outcome(connection, self._segments, account, machine, seq)

        try:
            return await self._readers.run(work)
        except FileNotFoundError:  # deleted between the row and the file: now the row is gone too
            return await self._readers.run(work)

    async def instructions(
        self, account: str, machine: str, *, limit: int | None = None, cursor: str | None = None
    ) -> tuple[list[InstructionRow], str | None]:
        """A machine's history, newest first, and the cursor of the next page if any.

        Raises `MachineNotFound`, and `InvalidRequest` for a cursor that is none.
        """
        return await self._readers.run(
            lambda connection: history.newest_first(connection, account, machine, limit=limit, cursor=cursor)
        )

    async def lost_before(self, account: str, machine: str) -> int | None:
        """Below which seq instructions may be missing, after a rebuild of the database. Raises `MachineNotFound`."""
        return await self._readers.run(lambda connection: history.lost_before(connection, account, machine))

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
        """Output of an instruction's newest attempt from byte offset `after` on; with `background`, all of it.

        `attempt` is the one the reader has read so far. If it was given up before `after`, the page says
        `restarted_from` and begins there; without `attempt` the newest one is read from `after` on, whatever came
        before. Raises `InstructionNotFound`. Ownership is not checked: look the machine up first.
        """

        def work(connection: Connection) -> OutputPage:
            return read_page(
                connection,
                self._segments,
                machine,
                seq,
                attempt=attempt,
                after=after,
                limit_bytes=limit_bytes,
                background=background,
            )

        try:
            return await self._readers.run(work)
        except FileNotFoundError:  # deleted between the row and the file: now the row is gone too
            return await self._readers.run(work)

    async def read_notices(self, machine: str) -> list[Notice]:
        """Notices that no answer has carried yet, oldest first."""
        return await self._readers.run(lambda connection: notices.unread(connection, machine))

    async def deliver_notices(self, machine: str, up_to: int) -> None:
        """An answer with the notices up to this id was written in full."""
        await self._writer.run(lambda connection: notices.deliver(connection, machine, up_to))

    async def events(self, machine: str, *, limit: int = 100) -> list[Event]:
        """The machine's history of events, newest first."""
        return await self._readers.run(lambda connection: notices.history(connection, machine, limit))

    async def remember(self, account: str, key: Idempotency, answer: dict[str, Any]) -> None:
        """Keep a request's answer for a repeat; the first one stays. Raises `IdempotencyKeyReused`."""

        def work(connection: Connection) -> None:
            account_id = _account_id(connection, account)
            earlier = idempotency.earlier_work(connection, account_id, key)
            if earlier is None or earlier.answer is None:
                idempotency.bind(connection, account_id, key, answer=answer)

        await self._writer.run(work)

    async def recall(self, account: str, key: Idempotency) -> dict[str, Any] | None:
        """The answer of an earlier request with this key, None if there is none. Raises `IdempotencyKeyReused`."""

        def work(connection: Connection) -> dict[str, Any] | None:
            earlier = idempotency.earlier_work(connection, _account_id(connection, account), key)
            return None if earlier is None else earlier.answer

        return await self._readers.run(work)

    async def expire(self, retention: LogRetention, after: int = 0, limit: int = 20) -> int:
        """Give up what is too old of log, output and events of the next `limit` machines behind the id `after`.

        The id to go on from, 0 at the end. Files of output go when a later call finds that nothing refers to them.
        """
        await self._remove_unreferred(after, limit)
        some, last = await self._readers.run(lambda connection: expiry.due(connection, retention, after, limit))
        for machine_id, name in some:
            while await self._writer.run(
                partial(expiry.expire, machine_id=machine_id, retention=retention), touches=name
            ):
                continue
        return last

    async def _remove_unreferred(self, after: int, limit: int) -> None:
        """Not in the call that gives the rows up: whoever reads has long finished by the next."""

        def has_files(connection: Connection) -> list[tuple[str, set[int]]]:
            names = machines.names_behind(connection, after, limit)
            return [
                (name, expiry.referred_segments(connection, name)) for name in names if self._segments.numbers(name)
            ]

        for name, referred in await self._readers.run(has_files):
            if await asyncio.to_thread(self._segments.numbers, name) - referred:
                await self._writer.run(partial(self._keep_only, name=name, referred=referred))

    def _keep_only(self, connection: Connection, name: str, referred: set[int]) -> None:
        self._segments.keep_only(name, referred | expiry.referred_segments(connection, name))

    async def delete_machine(self, account: str, name: str) -> None:
        """Delete a machine's rows and output, and condemn its key and its objects. Raises `MachineNotFound`."""
        await self._writer.run(lambda connection: machines.remove(connection, account, name), touches=name)
        await self._writer.run(lambda _: self._segments.remove(name))

    async def identity(self) -> str:
        """This ledger's own id, the same for ever, and in copies."""
        return await self._readers.run(lambda connection: str(connection.scalar(select(schema.identity.c.id))))

    async def condemned_machines(self) -> list[str]:
        """Deleted machines whose keys are to be destroyed, before any object of theirs is."""
        return await self._readers.run(saves.condemned_machine_names)

    async def forget_condemned_machine(self, name: str) -> None:
        """Its key is destroyed."""
        await self._writer.run(lambda connection: saves.forget_condemned_machine(connection, name))

    async def condemned(self) -> list[str]:
        """Keys of objects that nothing needs any more, oldest first."""
        return await self._readers.run(saves.condemned_keys)

    async def forget_condemned(self, keys: list[str]) -> None:
        """These objects are deleted."""
        await self._writer.run(lambda connection: saves.forget_condemned(connection, keys))

    async def stored_bytes(self) -> int:
        """What all snapshots and templates take in the store."""
        return await self._readers.run(saves.stored_bytes)

    async def knows_objects(self) -> bool:
        """Whether there may be objects in the store: needed ones, or condemned ones."""
        return await self._readers.run(saves.knows_objects)

    async def known_keys(self) -> set[str]:
        """Keys of objects that are needed, or may be: committed snapshots and saves that are under way."""
        return await self._readers.run(saves.known_keys)


def _account_id(connection: Connection, account: str) -> int:
    account_id = connection.scalar(select(schema.accounts.c.id).where(schema.accounts.c.name == account))
    if account_id is None:
        raise Unauthorized
    return int(account_id)
