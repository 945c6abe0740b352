"""How a terminal shows pictures, if it can.

Sources: kitty, "Terminal graphics protocol"; iTerm2, "Inline Images Protocol"; for Sixel see `sixel`.
"""

from __future__ import annotations

import base64
import os
import re
import select
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Literal

from . import png, sixel

Protocol = Literal["kitty", "iterm2", "sixel"]

ANSWER_SECONDS = 1.0
"""How long a terminal that is asked may think: one that knows the questions answers at once, or in a round trip."""
_KITTY_PIECE = 4096
_ASK_KITTY = "\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\"
_ASK_ATTRIBUTES = "\x1b[c"
"""Every terminal answers this one, so that nobody waits for one that does not know the other."""
_ATTRIBUTES = re.compile(r"\x1b\[\?([0-9;]*)c")
_SIXEL_ATTRIBUTE = "4"
_NEVER = ("dumb", "linux", "vt100", "vt102", "ansi", "unknown", "")


def known(environment: Mapping[str, str]) -> Protocol | Literal["ask"] | None:
    """What the environment says of the terminal: a protocol, None for no pictures, or that it must be asked."""
    term = environment.get("TERM", "")
    if term in _NEVER or environment.get("TERM_PROGRAM") == "Apple_Terminal":
        return None
    if in_multiplexer(environment):
        return "ask"  # what else the environment says is about another terminal, behind it
    program = environment.get("TERM_PROGRAM", "")
    if environment.get("KITTY_WINDOW_ID") or term in ("xterm-kitty", "xterm-ghostty") or program == "ghostty":
        return "kitty"
    if program in ("iTerm.app", "WezTerm") or environment.get("LC_TERMINAL") == "iTerm2":
        return "iterm2"
    return "ask"


def in_multiplexer(environment: Mapping[str, str]) -> bool:
    """Whether tmux or screen is between us and the terminal. They keep what they do not know from it."""
    return bool(environment.get("TMUX")) or environment.get("TERM", "").startswith(("tmux", "screen"))


def understood(answers: str) -> Protocol | None:
    """What a terminal's answers say."""
    if "_Gi=31;OK" in answers:
        return "kitty"
    attributes = _ATTRIBUTES.search(answers)
    return "sixel" if attributes is not None and _SIXEL_ATTRIBUTE in attributes[1].split(";")[1:] else None


def detect(environment: Mapping[str, str]) -> Protocol | None:
    """The protocol of the terminal on standard output; None if it shows no pictures, or does not answer in time."""
    found = known(environment)
    if found != "ask":
        return found
    if not sys.stdin.isatty():
        return None
    question = _ASK_ATTRIBUTES if in_multiplexer(environment) else _ASK_KITTY + _ASK_ATTRIBUTES
    return understood(_ask(question))


def _ask(question: str) -> str:
    """Ask the terminal, and read what it answers until the answer to the last question. No key is echoed meanwhile."""
    import termios  # noqa: PLC0415 - there is none on Windows, where nothing is asked

    source = sys.stdin.fileno()
    before = termios.tcgetattr(source)
    raw = termios.tcgetattr(source)
    raw[3] &= ~(termios.ICANON | termios.ECHO)
    raw[6][termios.VMIN], raw[6][termios.VTIME] = 0, 0
    answers = b""
    deadline = time.monotonic() + ANSWER_SECONDS
    termios.tcsetattr(source, termios.TCSADRAIN, raw)
    try:
        sys.stdout.write(question)
        sys.stdout.flush()
        while _ATTRIBUTES.search(answers.decode("latin-1")) is None:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([source], [], [], left)[0]:
                break
            answers += os.read(source, 1024)
    finally:
        termios.tcsetattr(source, termios.TCSADRAIN, before)
    return answers.decode("latin-1")


def drawn(protocol: Protocol, picture: bytes, width_pixels: int | None = None) -> str | None:
    """What draws a PNG picture at the cursor; None if the picture is damaged, or too large to be drawn.

    `width_pixels` is the terminal's width, where it is known.
    """
    if png.size_of(picture) is None:
        return None
    match protocol:
        case "kitty":
            return "".join(_kitty(picture))
        case "iterm2":
            body = base64.b64encode(picture).decode("ascii")
            return f"\x1b]1337;File=inline=1;size={len(picture)};preserveAspectRatio=1:{body}\x07"
        case "sixel":
            try:
                pixels = png.decode(picture)
            except png.NotReadable:
                return None
            return sixel.encode(pixels.no_wider_than(width_pixels) if width_pixels else pixels)


def _kitty(picture: bytes) -> Iterator[str]:
    body = base64.b64encode(picture).decode("ascii")
    for begin in range(0, len(body), _KITTY_PIECE):
        more = int(begin + _KITTY_PIECE < len(body))
        # q=2: no answer, which the prompt would take for typing.
        control = f"a=T,f=100,q=2,m={more}" if begin == 0 else f"q=2,m={more}"
        yield f"\x1b_G{control};{body[begin : begin + _KITTY_PIECE]}\x1b\\"


def width_pixels() -> int | None:
    """How wide the terminal on standard output is; None if it does not say."""
    import fcntl  # noqa: PLC0415 - as `termios` above
    import struct  # noqa: PLC0415
    import termios  # noqa: PLC0415

    try:
        answer = fcntl.ioctl(sys.stdout.fileno(), termios.TIOCGWINSZ, bytes(8))
    except OSError:
        return None
    _, _, width, _ = struct.unpack("HHHH", answer)
    return width or None
