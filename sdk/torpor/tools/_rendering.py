"""A result as a model takes it: a text and images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .._errors import ApiError
from .._reading import DEFAULT_TOKENS, pictures_of, text_of
from .._result import Result

IMAGES_LIMIT = 8


@dataclass(frozen=True)
class Rendered:
    """What a model is answered."""

    text: str
    images: tuple[bytes, ...] = ()
    """PNG files."""
    is_error: bool = False
    """Whether the code ended in an error, or could not be run; the text says which."""
    machine_name: str | None = None
    """The machine that it ran on; None if it could not be run."""
    seq: int | None = None
    """The instruction's number there, under which all of its output can be read."""


def render(result: Result, *, limit_tokens: int = DEFAULT_TOKENS, rest: Callable[[int], str] | None = None) -> Rendered:
    r"""Output, value or error, and notices as a text of about so many tokens at most; the figures as images.

    Of what is longer, `rest` says how a model can read on from a position (in characters).

    >>> render(machine.run("print('adding'); 3 + 5")).text
    'adding\n8'
    """
    text, images = text_of(result, limit_tokens=limit_tokens, rest=rest), pictures_of(result)
    if len(images) > IMAGES_LIMIT:
        text += f"\n[{len(images) - IMAGES_LIMIT} more figures were shown than the {IMAGES_LIMIT} here]"
        images = images[:IMAGES_LIMIT]
    return Rendered(text, images, result.error is not None, result.machine_name, result.seq)


def refusal(error: ApiError) -> Rendered:
    """What a model is told when its code could not be run."""
    return Rendered(f"{error.message} {error.hint or ''}".strip(), is_error=True)
