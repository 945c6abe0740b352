"""Instructions from a request to their answer: accept, hand over, wait, collect."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Literal, TypeVar

from starlette.requests import ClientDisconnect

from torpor_api.errors import InstructionExpired, InstructionNotFound, InvalidRequest, MachineBusy
from torpor_api.events import (
    Event,
    EventId,
    EventMaker,
    expired_event,
    merge_text,
    notice_json,
    restarted_event,
    shown_png,
    truncated_event,
)
from torpor_api.ledger import Accepted, Busy, Idempotency, InstructionRow, MachineSettings, Outcome, OutputPage
from torpor_api.models import ExecRequest, Instruction, RunRequest
from torpor_api.presence import Presence
from torpor_api.results import ending_json, moment, rich_result, timings
from torpor_api.services import Services
from torpor_worker.command import CommandInput
from torpor_worker.ledger import EntryKind, InstructionResult
from torpor_worker.stdin import Stdin

Prepared = TypeVar("Prepared")
WhenBusy = Literal["refuse", "queue", "interrupt"]

PRESENCE_SECONDS = 5.0
"""How often a waiting answer looks whether its client is still there."""
KEEPALIVE_SECONDS = 15.0
"""How long a stream may say nothing before it says that it lives."""


def timeout_of(services: Services, asked_seconds: float | None, field: str = "timeout_seconds") -> float:
    """The time-out in force; the maximum if infinity is asked for. Raises `InvalidRequest` if it is over that."""
    if asked_seconds is None:
        return services.config.timeout_seconds
    if asked_seconds == math.inf:
        return services.config.timeout_maximum_seconds
    if asked_seconds > services.config.timeout_maximum_seconds:
        raise InvalidRequest(f"{field}: it may be at most {services.config.timeout_maximum_seconds:g}.")
    return asked_seconds


def stdin_of(asked: Instruction | RunRequest) -> Stdin | None:
    """What a request gives its instruction to read."""
    if asked.stdin is None and not asked.stdin_open:
        return None
    return Stdin(asked.stdin or "", bool(asked.stdin_open))


def when_busy_of(asked: ExecRequest | RunRequest) -> WhenBusy:
    """What is to become of a request whose machine runs something."""
    if asked.interrupt:
        return "interrupt"
    return "queue" if asked.queue else "refuse"


async def submit(
    services: Services,
    account: str,
    machine: str,
    code: str,
    timeout_seconds: float,
    *,
    when_busy: WhenBusy,
    idempotency: Idempotency | None = None,
    told: bool = True,
    stdin: Stdin | None = None,
) -> tuple[Accepted | Busy, bool]:
    """Accept an instruction and hand it over; and whether another was interrupted for it.

    `told` is whether anybody is told its seq before its result. `Busy` only with `refuse`. Raises what
    `SqlLedger.accept` raises, and `ShuttingDown`.
    """
    services.stopping.refuse_work()
    ledger = services.ledger
    outcome = await ledger.accept(
        account,
        machine,
        code,
        timeout_seconds,
        when_busy="queue" if when_busy == "queue" else "refuse",
        idempotency=idempotency,
        told=told,
        stdin=stdin,
    )
    interrupted = False
    if isinstance(outcome, Busy) and when_busy == "interrupt":
        running_seq = outcome.running_seq
        outcome = await ledger.accept(
            account, machine, code, timeout_seconds, when_busy="queue", idempotency=idempotency, stdin=stdin
        )
        if running_seq is not None and isinstance(outcome, Accepted) and not outcome.repeated:
            interrupted = await services.machines.interrupt(machine, running_seq, coming=True) is not None
    if isinstance(outcome, Accepted):
        _hand_over(services, machine, outcome)
    return outcome, interrupted


async def submit_to_new(
    services: Services,
    account: str,
    settings: MachineSettings,
    code: str,
    timeout_seconds: float,
    *,
    idempotency: Idempotency | None,
    told: bool,
    stdin: Stdin | None,
) -> tuple[str, Accepted]:
    """Accept an instruction on a machine that is made for it, and hand it over: the machine's name, and the entry."""
    services.stopping.refuse_work()
    machine, accepted = await services.ledger.accept_on_new(
        account, settings, code, timeout_seconds, idempotency=idempotency, told=told, stdin=stdin
    )
    _hand_over(services, machine, accepted)
    return machine, accepted


def _hand_over(services: Services, machine: str, accepted: Accepted) -> None:
    if not accepted.repeated:
        services.machines.deliver(machine, accepted.entry if accepted.entry.position is not None else None)


async def end(services: Services, account: str, machine: str, seq: int | None) -> int | None:
    """Interrupt what runs, or only `seq`, as soon as it begins if it waits; its seq, None if there is none to end.

    A command has a signal for that, and is left alone. A server that stops forgets the interrupts of what waits.
    """
    coming = False
    if seq is not None:
        with contextlib.suppress(InstructionNotFound):
            row = await services.ledger.instruction(account, machine, seq)
            coming = row.kind is EntryKind.EXECUTE and row.status != "finished"
    return await services.machines.interrupt(machine, seq, coming=coming)


async def feed(
    services: Services,
    account: str,
    machine: str,
    seq: int,
    piece: CommandInput,
    idempotency: Idempotency | None,
) -> None:
    """Accept more for an instruction to read, and hand it over. Raises what `SqlLedger.accept_input` raises."""
    services.stopping.refuse_work()
    _hand_over(
        services, machine, await services.ledger.accept_input(account, machine, seq, piece, idempotency=idempotency)
    )


async def submit_or_refuse(
    services: Services,
    account: str,
    machine: str,
    code: str,
    timeout_seconds: float,
    *,
    when_busy: WhenBusy,
    idempotency: Idempotency | None,
    told: bool,
    stdin: Stdin | None,
) -> Accepted:
    """Like `submit`, with `MachineBusy` for a busy machine."""
    outcome, _ = await submit(
        services,
        account,
        machine,
        code,
        timeout_seconds,
        when_busy=when_busy,
        idempotency=idempotency,
        told=told,
        stdin=stdin,
    )
    if isinstance(outcome, Busy):
        raise MachineBusy
    return outcome


async def finished(
    services: Services,
    account: str,
    machine: str,
    seq: int,
    presence: Presence,
    *,
    fresh: bool = False,
    prepare: Callable[[Outcome], Prepared | None] = lambda _: None,
) -> tuple[Outcome, InstructionResult, Prepared | None]:
    """Wait until the instruction has its result: the outcome, the result in it, and what `prepare` made of it.

    `prepare` is called while the outcome is on its way to the disk; None if it was not. With `fresh`, it was started a
    moment ago: there is nothing to read before the next commit. Raises `ShuttingDown`, `ClientDisconnect`, and
    `MachineNotFound` if the machine is deleted meanwhile.
    """
    with services.ledger.changes.watch(machine, seq, prepare) as watch:
        if fresh:
            await watch.wait(PRESENCE_SECONDS)
        while True:
            outcome = watch.outcome or await services.ledger.outcome(account, machine, seq)
            if outcome.instruction.result is not None:
                return outcome, outcome.instruction.result, watch.prepared if outcome is watch.outcome else None
            refuse_expired(outcome.instruction)
            services.stopping.refuse_waiting()
            if not await watch.wait(PRESENCE_SECONDS) and await presence.is_gone():
                raise ClientDisconnect


def refuse_expired(row: InstructionRow) -> None:
    """Raise `InstructionExpired` for an instruction whose result there was, and is not any more."""
    if row.expired:
        raise InstructionExpired


async def pages(services: Services, machine: str, seq: int) -> AsyncIterator[OutputPage | None]:
    """Foreground output from the beginning until there is a result, over restarts; None says that nothing happens.

    The last page has `finished` set and `more` not; without one the server is stopping.
    """
    offset = 0
    with services.ledger.changes.watch(machine) as watch:
        while True:
            page = await services.ledger.output(machine, seq, after=offset)
            yield page
            offset = page.end
            if page.more:
                continue
            if page.finished or services.stopping.over:
                return
            if not await watch.wait(KEEPALIVE_SECONDS):
                yield None


async def follow(
    services: Services, account: str, machine: str, seq: int, start: EventId | None = None, *, with_wake: bool = False
) -> AsyncIterator[list[Event]]:
    """Events of an instruction behind `start`, in batches; an empty one says that nothing happens.

    The `result` comes last but for background output. Ends without one when the server is stopping.
    """
    maker = EventMaker()
    attempt = start.attempt if start else None
    offset = start.offset if start else 0
    if start is None or not start.after_result:
        with services.ledger.changes.watch(machine) as watch:
            while True:
                page = await services.ledger.output(machine, seq, attempt=attempt, after=offset)
                if page.restarted_from is not None and offset > page.restarted_from:
                    maker = EventMaker()
                    yield [restarted_event(EventId(page.attempt, page.restarted_from))]
                if events := list(maker.page(page)):
                    yield events
                attempt, offset = page.attempt, page.end
                if page.more:
                    continue
                if page.finished:
                    break
                if services.stopping.over:
                    return
                if not await watch.wait(KEEPALIVE_SECONDS):
                    yield []
        row = await services.ledger.instruction(account, machine, seq)
        yield [*_end_of_output(maker, page), *final_events(row, page, with_wake=with_wake)]
    maker = EventMaker()
    while True:
        page = await services.ledger.output(machine, seq, attempt=attempt, after=offset, background=True)
        if events := list(maker.page(page)):
            yield events
        offset = page.end
        if not page.more:
            break
    if page.background_truncated_bytes:
        yield [truncated_event(EventId(page.attempt, page.end), page.background_truncated_bytes)]


def _end_of_output(maker: EventMaker, page: OutputPage) -> list[Event]:
    end = EventId(page.attempt, page.end)
    events = list(maker.flush(page.attempt, page.end))
    if page.expired:
        events.append(expired_event(end))
    elif page.truncated_bytes:
        events.append(truncated_event(end, page.truncated_bytes))
    return events


def error_events(row: InstructionRow, event_id: EventId) -> list[Event]:
    """The `error` event of an instruction that ended in one."""
    if row.result is None or row.result.error is None:
        return []
    detail = row.result.error_detail or {}
    name, _, message = row.result.error.partition(": ")
    return [
        {
            "type": "error",
            "id": str(event_id),
            "name": detail.get("name", name),
            "message": detail.get("message", message),
            "traceback": detail.get("traceback", []),
        }
    ]


def final_events(row: InstructionRow, page: OutputPage, *, with_wake: bool = False) -> list[Event]:
    """The end of an instruction: its error if it has one, and its result."""
    if row.result is None:
        return []
    ending = ending_json(row) if row.kind is EntryKind.COMMAND else {}
    return [
        *error_events(row, EventId(page.attempt, page.end)),
        {
            "type": "result",
            "id": str(EventId(page.attempt, page.end, after_result=True)),
            "instruction_seq": row.seq,
            "result": rich_result(row.result),
            **{name: value for name, value in ending.items() if name != "error"},
            "timings": timings(row, with_wake=with_wake),
            "finished_at": moment(row.finished_at),
        },
    ]


async def collect(services: Services, row: InstructionRow, machine: str, page: OutputPage | None = None) -> list[Event]:
    """All that an instruction said before its result, neighbouring text in one piece; `page` is the first, if known."""
    pages = [page or await services.ledger.output(machine, row.seq)]
    while pages[-1].more:
        pages.append(await services.ledger.output(machine, row.seq, after=pages[-1].end))
    return _collected(row, pages)


def _collected(row: InstructionRow, pages: Sequence[OutputPage]) -> list[Event]:
    maker = EventMaker()
    events = [event for page in pages for event in maker.page(page)]
    events.extend(_end_of_output(maker, pages[-1]))
    events.extend(error_events(row, EventId(pages[-1].attempt, pages[-1].end)))
    return merge_text(events)


async def last_picture(services: Services, machine: str, seq: int, page: OutputPage) -> str | None:
    """The last PNG that a finished instruction showed; `page` is the first of its output."""
    picture = shown_png(record for _, record in page.records)
    while page.more:
        page = await services.ledger.output(machine, seq, after=page.end)
        picture = shown_png(record for _, record in page.records) or picture
    return picture


async def run_answer(
    services: Services,
    machine: str,
    outcome: Outcome,
    result: InstructionResult,
    *,
    with_wake: bool,
    with_notices: bool,
) -> dict[str, Any]:
    """The answer of `run`."""
    events = await collect(services, outcome.instruction, machine, outcome.output)
    return _run_answer(machine, outcome, result, events, with_wake=with_wake, with_notices=with_notices)


def run_answer_at_once(machine: str, outcome: Outcome, *, with_wake: bool, with_notices: bool) -> dict[str, Any] | None:
    """The answer of `run`; None if the instruction is not finished, or more of its output is to be read."""
    result = outcome.instruction.result
    if result is None or outcome.output.more:
        return None
    events = _collected(outcome.instruction, [outcome.output])
    return _run_answer(machine, outcome, result, events, with_wake=with_wake, with_notices=with_notices)


def _run_answer(
    machine: str,
    outcome: Outcome,
    result: InstructionResult,
    events: list[Event],
    *,
    with_wake: bool,
    with_notices: bool,
) -> dict[str, Any]:
    row = outcome.instruction
    return {
        "machine": machine,
        "instruction_seq": row.seq,
        "result": rich_result(result),
        "events": events,
        "notices": [notice_json(notice) for notice in outcome.notices] if with_notices else [],
        "timings": timings(row, with_wake=with_wake),
    }
