"""What the API asks of the truth about commands beside instructions."""

from __future__ import annotations

from torpor_api.ledger import commands
from torpor_api.ledger.readers import Readers
from torpor_api.ledger.rows import Accepted, Idempotency, InstructionRow
from torpor_api.ledger.writer import Writer
from torpor_worker.command import CommandInput, CommandSignal, CommandSpec


class CommandSide:
    """Each method is one transaction, durable when it returns."""

    _writer: Writer
    _readers: Readers

    async def accept_command(
        self,
        account: str,
        machine: str,
        spec: CommandSpec,
        timeout_seconds: float,
        *,
        background: bool,
        idempotency: Idempotency | None = None,
    ) -> Accepted:
        """Write a command into the log; it is started at once if the machine is awake, whatever else runs there.

        `timeout_seconds` 0: it has none. Raises `MachineNotFound`, `MachineParked`, `RuntimeQuarantined`,
        `TooManyCommands`, `IdempotencyKeyReused`.
        """
        return await self._writer.run(
            lambda connection: commands.accept(
                connection,
                account,
                machine,
                spec,
                timeout_seconds,
                background=background,
                idempotency=idempotency,
            ),
            touches=machine,
        )

    async def accept_command_input(
        self, account: str, machine: str, seq: int, piece: CommandInput, *, idempotency: Idempotency | None = None
    ) -> Accepted:
        """Write input for a command into the log; the `seq` of what is accepted is the command's.

        Raises as `accept_command` does, and `CommandNotFound`, `CommandNotRunning`, `CommandInputClosed`,
        `CommandInputFull`.
        """
        return await self._writer.run(
            lambda connection: commands.accept_input(connection, account, machine, seq, piece, idempotency=idempotency),
            touches=machine,
        )

    async def accept_command_signal(
        self, account: str, machine: str, seq: int, sign: CommandSignal, *, idempotency: Idempotency | None = None
    ) -> Accepted:
        """Write a signal for a command into the log. Raises as `accept_command_input` does."""
        return await self._writer.run(
            lambda connection: commands.accept_signal(connection, account, machine, seq, sign, idempotency=idempotency),
            touches=machine,
        )

    async def commands(
        self, account: str, machine: str, *, limit: int | None = None, cursor: str | None = None
    ) -> tuple[list[InstructionRow], str | None]:
        """A machine's commands, those without an end first, then newest first, and the cursor of the next page if any.

        Raises `MachineNotFound`, and `InvalidRequest` for a cursor that is none.
        """
        return await self._readers.run(
            lambda connection: commands.running_first(connection, account, machine, limit=limit, cursor=cursor)
        )
