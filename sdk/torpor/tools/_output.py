"""The rest of an output that was too long for one answer."""

from __future__ import annotations

from collections.abc import Callable

from .._models import Instruction
from .._reading import CHARACTERS_A_TOKEN, beginning, whole_text_of, whole_text_of_command
from .._result import make_result
from ._rendering import Rendered


def says_how_to_read_on(seq: int) -> Callable[[int], str]:
    """What a model is told of characters that are left out from a position on."""
    return lambda position: f"the code `%output {seq} {position}` shows them"


def read_on(
    instruction: Instruction, position: int, *, limit_tokens: int, rest: Callable[[int], str] | None = None
) -> Rendered:
    """What an instruction has shown from a position on, as much as fits, and how to read on from there.

    A negative position counts from the end. `rest` says of a position how to read on from it.
    """
    seq = instruction.seq
    if (reason := reason_for_nothing(instruction)) is not None:
        return Rendered(reason, is_error=True)
    whole = whole_text_of_instruction(instruction)
    if position < 0:
        position = max(0, len(whole) + position)
    fits = beginning(whole[position:], limit_tokens * CHARACTERS_A_TOKEN)
    left = len(whole) - position - len(fits)
    parts = [fits.removesuffix("\n")]
    if left > 0:
        parts.append(f"[… {left} characters follow; {(rest or says_how_to_read_on(seq))(position + len(fits))} …]")
    elif instruction.result is None:
        parts.append(f"[Instruction {seq} is not finished yet.]")
    return Rendered("\n".join(part for part in parts if part) or "(no more output)", seq=seq)


def reason_for_nothing(instruction: Instruction) -> str | None:
    """Why nothing can be read of an instruction, as a sentence; None if something can."""
    if instruction.expired or instruction.output_expired:
        return f"What instruction {instruction.seq} showed is not kept any more."
    if instruction.result is None and not instruction.events:
        return f"Instruction {instruction.seq} is not finished yet."
    return None


def whole_text_of_instruction(instruction: Instruction) -> str:
    """Everything that an instruction or a command has shown so far."""
    # Output that came from the background after the result would move the positions.
    shown = [event for event in instruction.events or () if not getattr(event, "background", False)]
    result = make_result("", instruction.seq, instruction.result or {}, shown)
    if instruction.kind == "command":
        return whole_text_of_command(result.stdout, result.stderr, (instruction.result or {}).get("error"))
    return whole_text_of(result)
