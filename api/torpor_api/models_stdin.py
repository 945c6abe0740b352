"""Requests and answers about what instructions read."""

from __future__ import annotations

from pydantic import Field

from torpor_api.models import Answer, Stdin, StrictRequest


class StdinRequest(StrictRequest):
    """More for an instruction to read."""

    data: Stdin | None = Field(
        default=None, description="At most 1 MiB of UTF-8. `input()` reads up to a line's end, so end lines with one."
    )
    close: bool | None = Field(default=False, description="Nothing follows: whoever reads on meets the end.")


class StdinAnswer(Answer):
    """Which instruction reads it."""

    machine: str
    instruction_seq: int
