"""What a shell's programs may write on a terminal."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor._terminal.shell_text import ShellText

SAFE = re.compile(
    r"(?:[^\x00-\x08\x0b-\x1f\x7f-\x9f]|[\r\b]"
    r"|\x1b\[(?:\?[0-9;]*[hlJKrs]|[0-9;:]*(?:[@-MPSTXZ`abd-hlmrsu]| q))|\x1b[78=>DEHM]|\x1b[()*+][AB012])*"
)
PIECES = st.text(
    st.sampled_from("\x1b\x1b[]P\\X^_k?;:>$!0123mKCDABHJhlctnxpqrsu( B7=\x07\x05\x0e\x18\x90\x9b\x9d\r\n\btext")
)


@pytest.mark.parametrize(
    "text",
    [
        "\x1b[?1049h\x1b[H\x1b[2J\x1b[?25l full screen \x1b[24;80H\x1b[1;24r\x1b[3S\x1b[?1049l",
        "\x1b[31mred\x1b[0m \x1b[4:3mcurly\x1b[m \x1b[2 q",
        "\x1b7\x1b[5;5H\x1b8 \x1b(0lqk\x1b(B \x1b= \x1b> \x1bM",
        "\x1b[?2004huser@torpor:~$ ls\r\n",
    ],
)
def test_what_full_screens_need_passes(text: str) -> None:
    assert ShellText().feed(text) == text


@pytest.mark.parametrize(
    "attack",
    [
        "\x1b]52;c;cm0gLXJmIH4=\x07",
        "\x9d52;c;cm0gLXJmIH4=\x9c",
        "\x1b]0;a title\x1b\\",
        "\x1bP$qm\x1b\\",
        "\x1b[21t",
        "\x1b[c",
        "\x1b[>c",
        "\x1b[6n",
        "\x1b[?1$p",
        "\x1b[>q",
        "\x1b[?u",
        "\x1bZ",
        "\x05",
    ],
)
def test_what_acts_or_asks_does_not(attack: str) -> None:
    assert ShellText().feed(f"a{attack}b") == "ab"


@given(st.lists(PIECES))
def test_whatever_comes_in_whatever_pieces_what_passes_only_draws(pieces: list[str]) -> None:
    filtered = ShellText()
    assert SAFE.fullmatch("".join(map(filtered.feed, pieces)))
