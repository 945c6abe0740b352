"""The rest of an output that was too long for one answer."""

from __future__ import annotations

from collections.abc import Callable

from .._models import Instruction
from .._reading import CHARACTERS_A_TOKEN, beginning, whole_text_of
from .._result import make_result
from ._rendering import Rendered


def says_how_to_read_on(seq: int) -> Callable[[int], str]:
    """What a model is told of characters that are left out from a position on."""
    return lambda position: f"the code `%output {seq} {position}` shows them"


def read_on(instruction: Instruction, position: int, *, limit_tokens: int) -> Rendered:
    """What an instruction has shown from a position on, as much as fits, and how to read on from there."""
    seq = instruction.seq
    if instruction.expired or instruction.output_expired:
        return Rendered(f"What instruction {seq} showed is not kept any more.", is_error=True)
    if instruction.result is None:
        return Rendered(f"Instruction {seq} is not finished yet.", is_error=True)
    # Output that came from the background after the result would move the positions.
    shown = [event for event in instruction.events or () if not getattr(event, "background", False)]
    whole = whole_text_of(make_result("", seq, instruction.result, shown))
    fits = beginning(whole[position:], limit_tokens * CHARACTERS_A_TOKEN)
    left = len(whole) - position - len(fits)
    if left <= 0:
        return Rendered(fits.removesuffix("\n") or "(no more output)", seq=seq)
    follow = f"[… {left} characters follow; {says_how_to_read_on(seq)(position + len(fits))} …]"
    return Rendered(f"{fits.removesuffix(chr(10))}\n{follow}", seq=seq)
