"""Commands from a request to their answer: accept, hand over, collect."""

from __future__ import annotations

from typing import Any

from torpor_api.errors import CommandNotFound
from torpor_api.events import notice_json
from torpor_api.instructions import timeout_of
from torpor_api.ledger import Accepted, Idempotency, Outcome, OutputPage
from torpor_api.models_commands import CommandRequest, TerminalSize
from torpor_api.results import ending_json, timings
from torpor_api.services import Services
from torpor_worker.command import CommandInput, CommandSignal, CommandSpec, Terminal
from torpor_worker.ledger import EntryKind


def spec_of(asked: CommandRequest) -> CommandSpec:
    """What a request asks to execute."""
    terminal = None
    if asked.pty:
        size = asked.pty if isinstance(asked.pty, TerminalSize) else TerminalSize()
        terminal = Terminal(size.rows, size.columns)
    by_default = terminal is not None or (bool(asked.background) and asked.stdin is None)
    return CommandSpec(
        command=asked.command if isinstance(asked.command, str) else tuple(asked.command),
        cwd=asked.cwd,
        env=dict(asked.env or {}),
        stdin=(asked.stdin or "").encode("utf-8", "surrogateescape"),
        stdin_open=by_default if asked.stdin_open is None else asked.stdin_open,
        terminal=terminal,
    )


async def submit(
    services: Services, account: str, machine: str, asked: CommandRequest, idempotency: Idempotency | None
) -> Accepted:
    """Accept a command and hand it over. Raises what `SqlLedger.accept_command` raises, and `ShuttingDown`."""
    services.stopping.refuse_work()
    if asked.timeout_seconds is None and asked.background:
        timeout_seconds = 0.0
    else:
        timeout_seconds = timeout_of(services, asked.timeout_seconds)
    accepted = await services.ledger.accept_command(
        account,
        machine,
        spec_of(asked),
        timeout_seconds,
        background=bool(asked.background),
        idempotency=idempotency,
    )
    _hand_over(services, machine, accepted)
    return accepted


async def tell(
    services: Services,
    account: str,
    machine: str,
    seq: int,
    what: CommandInput | CommandSignal,
    idempotency: Idempotency | None,
) -> None:
    """Accept input or a signal for a command and hand it over. Raises as `submit` does, and of the command."""
    services.stopping.refuse_work()
    ledger = services.ledger
    if isinstance(what, CommandInput):
        accepted = await ledger.accept_command_input(account, machine, seq, what, idempotency=idempotency)
    else:
        accepted = await ledger.accept_command_signal(account, machine, seq, what, idempotency=idempotency)
    _hand_over(services, machine, accepted)


def _hand_over(services: Services, machine: str, accepted: Accepted) -> None:
    if not accepted.repeated:
        services.machines.deliver(machine, accepted.entry if accepted.entry.position is not None else None)


async def answer(services: Services, machine: str, outcome: Outcome, *, with_notices: bool = True) -> dict[str, Any]:
    """All that a command said, and how it ended."""
    row, pages = outcome.instruction, [outcome.output]
    if row.kind is not EntryKind.COMMAND:
        raise CommandNotFound
    while pages[-1].more:
        pages.append(await services.ledger.output(machine, row.seq, after=pages[-1].end))
    return {
        "machine": machine,
        "seq": row.seq,
        **ending_json(row),
        "stdout": _text(pages, "stdout"),
        "stderr": _text(pages, "stderr"),
        "truncated_bytes": pages[-1].truncated_bytes,
        "notices": [notice_json(notice) for notice in outcome.notices] if with_notices else [],
        "timings": timings(row),
    }


def _text(pages: list[OutputPage], kind: str) -> str:
    """What was written to a stream; bytes that are not UTF-8 become U+FFFD."""
    data = b"".join(record.data for page in pages for _, record in page.records if record.kind == kind)
    return data.decode("utf-8", "replace")
