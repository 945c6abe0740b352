"""Text of strangers on its way to a terminal."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor._terminal.safe_text import LONGEST_STRING, SafeText, plain

SAFE = re.compile(r"(?:[^\x00-\x08\x0b-\x1f\x7f-\x9f]|[\r\b]|\x1b\[[0-9;:]*m|\x1b\[[0-2]?K|\x1b\[[0-9]{0,4}[CD])*")
HOSTILE = st.text(
    st.sampled_from("\x1b\x1b[]P\\X^_k?;:0123mKCDABHJ(q \x07\x05\x0e\x18\x1a\x7f\x80\x90\x9b\x9c\x9d\r\n\b\ttext\u20ac")
)


def shown(text: str, **options: bool) -> str:
    return SafeText(**options).feed(text)


@pytest.mark.parametrize(
    "text",
    [
        "plain, größer, \U0001f600\n\tindented\n",
        "\x1b[31mred\x1b[0m \x1b[1;38;5;208mbold orange\x1b[m \x1b[4:3mcurly\x1b[0m",
        "  0%|     |\r 50%|##   |\r100%|#####|\n",
        "\x1b[2K\rline anew\x1b[K\x1b[0K\x1b[1K",
        "ab\b\bAB\x1b[3D\x1b[2C\x1b[D",
    ],
)
def test_what_colours_and_progress_bars_need_passes(text: str) -> None:
    assert shown(text) == text


@pytest.mark.parametrize(
    "attack",
    [
        "\x1b]52;c;cm0gLXJmIH4=\x07",  # the clipboard
        "\x1b]52;c;cm0gLXJmIH4=\x1b\\",
        "\x9d52;c;cm0gLXJmIH4=\x9c",
        "\x1b]0;a title\x07",
        "\x1b]8;;file:///etc/passwd\x1b\\\x1b]8;;\x1b\\",
        "\x1bP$qm\x1b\\",  # DECRQSS: the terminal answers as if its user had typed
        "\x1bP+q544e\x1b\\",  # XTGETTCAP
        "\x1b[21t",  # report the title
        "\x1b[c",
        "\x9bc",
        "\x1b[6n",
        "\x1bZ",
        "\x05",  # ENQ: the answerback message
        "\x1b[?1049h",  # the alternate screen
        "\x1b[?25l",  # no cursor
        "\x1b[?2004l",
        "\x1b[2J\x1b[H\x1b[3J",
        "\x1b[10A\x1b[5;5H\x1b[3S",
        "\x1b[99999D",
        "\x1b[1;1r",
        "\x1b[!p",
        "\x1bc",
        "\x1b(0\x0e\x0f",
        "\x1b#8",
        "\x1bkname\x1b\\",  # a window's name in screen and tmux
        "\x1b_Ga=T,f=100;AAAA\x1b\\",
        "\x1b]1337;File=name=eA==:AAAA\x07",
        "\x1b[>4;2m",  # keys are reported in another way
        "\x1b[?4m",
        "\x1b[1 q",
        "\x1b[" + "1;" * 100 + "m",
        "\x00\x01\x07\x0b\x0c\x7f\x84\x85",
    ],
)
def test_nothing_else_does(attack: str) -> None:
    passed = shown(f"before{attack}after")
    assert passed.startswith("before")
    assert passed.endswith("after")
    assert SAFE.fullmatch(passed)
    assert "\x1b" not in passed


@given(HOSTILE | st.text())
def test_whatever_comes_what_passes_is_safe(text: str) -> None:
    assert SAFE.fullmatch(shown(text))
    assert "\x1b" not in plain(text)
    assert "\x1b" not in shown(text, colours=False, movements=False)


@given(st.lists(HOSTILE))
def test_it_does_not_matter_in_which_pieces_it_comes(pieces: list[str]) -> None:
    safe = SafeText()
    assert "".join(map(safe.feed, pieces)) == shown("".join(pieces))


def test_a_string_that_never_ends_swallows_one_line_and_no_more() -> None:
    assert shown("a\x1b]0;title\nthe next line") == "a\nthe next line"
    assert shown("a\x1bP" + "x" * (LONGEST_STRING + 5)) == "axxxxx"


def test_colours_that_are_in_force_at_the_end_are_ended() -> None:
    safe = SafeText()
    assert safe.feed("\x1b[31mred\x1b[") == "\x1b[31mred"
    assert safe.finish() == "\x1b[0m"
    assert safe.feed("31mtext") == "31mtext"
    assert safe.finish() == ""


def test_without_colours_the_text_and_its_movements_stay() -> None:
    assert shown("\x1b[31mred\x1b[0m\r\x1b[K", colours=False) == "red\r\x1b[K"
    assert shown("\x1b[31mred\x1b[0m\r\x1b[K", colours=False, movements=False) == "red\r"
