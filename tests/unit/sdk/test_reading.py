"""What a language model reads of a result."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor._events import Display, Event, Notice, Stderr, Stdout
from torpor._models import Instruction
from torpor._reading import cut, error_text, on_a_screen, text_of, whole_text_of
from torpor._result import ErrorInfo, Result, make_result
from torpor.tools import INSTRUCTIONS, PARAMETERS, render
from torpor.tools._arguments import AskedForOutput, AskedToRun, asked
from torpor.tools._binding import alias_of, idempotency_key
from torpor.tools._output import read_on


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int = 1, height: int = 1, *, more: bytes = b"") -> bytes:
    """A picture; only one of a single pixel is whole."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0\0")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def display(picture: bytes) -> Display:
    return Display({"text/plain": "<Figure>", "image/png": base64.b64encode(picture).decode()})


PNG = base64.b64encode(png()).decode()


def result(*events: Event, notices: tuple[Notice, ...] = (), **stored: Any) -> Result:
    return make_result("m" * 16, 7, {"runtime_ms": 1, **stored}, events, notices=notices)


def test_output_value_and_notices_are_read_in_their_order() -> None:
    shown = result(
        Stdout("one\n"),
        Stderr("careful\n"),
        Display({"text/plain": "   x\n0  1", "text/html": "<table>"}),
        Display({"text/plain": "<Figure>", "image/png": PNG}),
        Stdout("two"),
        notices=(Notice("restored", "It was restored."),),
        value="8",
    )
    assert shown.text == "one\n[stderr] careful\n   x\n0  1\n[a figure]\ntwo\n8\n[notice] It was restored."
    assert render(shown).images == (png(),)
    assert result(value=None).text == "(no output)"


def test_an_error_is_its_own_frames_and_short() -> None:
    lines = ["Traceback (most recent call last):", *(f"  frame {i}" for i in range(100)), "ValueError: bad"]
    failed = result(error="ValueError: bad", error_detail={"name": "ValueError", "message": "bad", "traceback": lines})
    assert failed.text.startswith("Traceback")
    assert failed.text.endswith("ValueError: bad")
    assert "[82 more lines]" in failed.text
    assert render(failed).is_error


def test_an_error_that_ended_code_from_outside_is_named_behind_what_it_raised_inside() -> None:
    traceback = ("Traceback (most recent call last):", '  File "<cell 0>", line 1, in <module>', "KeyboardInterrupt")
    ended = error_text(ErrorInfo("TimeoutError", "Timed out after 1 s", traceback, ("interrupt",)))
    assert ended.splitlines()[-3:] == [
        "KeyboardInterrupt",
        "TimeoutError: Timed out after 1 s",
        "[it was ended by: interrupt]",
    ]
    interrupted = error_text(ErrorInfo("KeyboardInterrupt", "", traceback, ("interrupt",)))
    assert interrupted.splitlines()[-2:] == ["KeyboardInterrupt", "[it was ended by: interrupt]"]


def test_of_a_flood_beginning_and_end_are_kept_and_where_the_rest_is_said() -> None:
    flood = result(Stdout("first" + "x" * 10**6 + "last\n"), value="8")
    text = text_of(flood, limit_tokens=1000)
    assert len(text) < 4 * 1000 + 200
    assert text.startswith("first")
    assert "last\n8" in text
    assert "output of instruction 7 of machine mmmm" in text


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])), st.integers(10, 100))
def test_what_is_cut_says_how_much_is_missing_and_from_where_on(text: str, limit: int) -> None:
    places: list[int] = []

    def rest(position: int) -> str:
        places.append(position)
        return "rest"

    shown = cut(text, limit, rest)
    text = text.rstrip("\n")
    if len(text.encode()) <= limit:
        assert shown == text
        return
    (position,) = places
    head, note, tail = text[:position].removesuffix("\n"), "", shown.rpartition(" characters left out; rest …]\n")[2]
    missing = len(text) - position - len(tail)
    note = f"\n[… {missing} characters left out; rest …]\n"
    assert shown == head + note + tail
    assert text.endswith(tail)
    assert len(head.encode()) + len(tail.encode()) <= limit
    assert missing > 0


@given(
    st.lists(st.text(alphabet="ab\nü漢", max_size=400), min_size=1, max_size=4),
    st.text(alphabet="xyz", max_size=300),
    st.integers(20, 60),
)
def test_reading_on_from_a_cut_shows_every_character_once(output: list[str], value: str, tokens: int) -> None:
    events: list[Event] = [Stdout(text) for text in output]
    whole = whole_text_of(result(*events, value=value))
    instruction = Instruction.model_validate(
        {"instruction_seq": 7, "code": "", "result": {"value": value, "runtime_ms": 1}, "events": events}
    )
    position, lines = 0, ""
    for _ in range(200):
        shown = read_on(instruction, position, limit_tokens=tokens).text
        body, found, follow = shown.rpartition("\n[… ")
        if not found:
            lines += shown
            break
        following = asked({"code": follow.split("`")[1]})
        assert isinstance(following, AskedForOutput)
        assert following.position > position
        lines += whole[position : following.position]
        assert whole[position : following.position].removesuffix("\n") == body
        position = following.position
    assert lines == (whole.removesuffix("\n") or "(no more output)")


def test_output_can_be_asked_for_and_what_is_fenced_is_code() -> None:
    assert asked({"code": " %output 7 900\n"}) == AskedForOutput(7, 900)
    assert asked('{"code": "%output 7"}') == AskedForOutput(7)
    assert asked({"code": "```python\na = 3\n```"}) == AskedToRun("a = 3")
    assert asked({"code": "%output = 7"}) == AskedToRun("%output = 7")


def test_of_an_instruction_without_output_it_is_said_why() -> None:
    def said(**fields: Any) -> str:
        row = Instruction.model_validate({"instruction_seq": 7, "code": "", **fields})
        shown = read_on(row, 0, limit_tokens=100)
        assert shown.is_error
        return shown.text

    assert said() == "Instruction 7 is not finished yet."
    gone = "What instruction 7 showed is not kept any more."
    assert said(expired=True) == said(result={"value": "8"}, output_expired=True) == gone


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (b"\x89PNG picture", "no valid PNG"),
        (png()[:-1], "no valid PNG"),
        (png() + b"more", "no valid PNG"),
        (png()[:40] + b"?" + png()[41:], "no valid PNG"),
        (png(width=9000), "9000 by 1 pixels"),
        (png(height=0), "no valid PNG"),
        (png(more=chunk(b"tEXt", b"x" * 4_000_000)), "bytes, more than"),
    ],
)
def test_a_picture_that_a_models_service_would_refuse_is_not_shown_but_named(picture: bytes, reason: str) -> None:
    shown = render(result(display(picture), value="8"))
    assert shown.images == ()
    assert "[a figure that cannot be shown: it " in shown.text
    assert reason in shown.text


def test_a_figure_that_is_shown_twice_is_one_image_and_too_many_are_counted() -> None:
    figure = result(display(png()), value="<Figure>", data={"png": PNG})
    assert render(figure).images == (png(),)
    many = [display(png(more=chunk(b"tEXt", bytes([number])))) for number in range(10)]
    shown = render(result(*many, value=None))
    assert len(shown.images) == 8
    assert "[2 more figures" in shown.text


def test_text_is_read_as_it_stands_on_a_screen() -> None:
    bar = result(Stderr("\x1b[32m 10%\r 50%\r100%\x1b[0m\r\ndone\x07\n"), Stdout("tail"), value=None)
    assert bar.text == "[stderr] 100%\ndone\ntail"
    assert on_a_screen("a\r\nb\r") == "a\nb"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (
            {"text/plain": "<IPython.core.display.HTML object>", "text/html": "<b>8 &gt; 3</b><script>x</script>"},
            "8 > 3",
        ),
        ({"text/plain": "<IPython.core.display.Markdown object>", "text/markdown": "**8**"}, "**8**"),
        ({"application/json": {"a": 3}}, '{"a": 3}'),
        ({"text/plain": "<IPython.core.display.SVG object>", "image/svg+xml": "<svg/>"}, "it is SVG, and only PNG"),
        ({"application/x-novelty": "?"}, "[application/x-novelty]"),
    ],
)
def test_displays_are_read_in_the_form_that_says_most(data: dict[str, Any], text: str) -> None:
    assert text in result(Display(data), value=None).text


def test_what_a_model_is_told_is_short_and_its_schema_strict() -> None:
    assert len(INSTRUCTIONS.split()) <= 80
    assert set(PARAMETERS["required"]) == set(PARAMETERS["properties"])


@given(st.text(min_size=1))
def test_every_conversation_has_a_machine_of_its_own(conversation: str) -> None:
    alias = alias_of(conversation)
    assert 1 <= len(alias) <= 63
    assert alias.isascii()
    assert alias not in ("new", "list")
    assert not (len(alias) == 16 and alias.isalnum())
    assert alias == conversation or alias.startswith("conversation-")
    key = idempotency_key(conversation, "1")
    assert key is not None
    assert len(key) <= 255
    assert key.isascii()
    assert key not in (idempotency_key(conversation, "2"), idempotency_key(conversation, "1", 60))


def test_a_result_shows_itself_in_a_notebook() -> None:
    shown = result(Display({"image/png": PNG}), value="<table>", data={"html": "<b>8</b>"})
    assert shown._repr_mimebundle_()["text/html"] == "<b>8</b>"
    assert shown._repr_mimebundle_()["image/png"] == PNG
    assert result(Stdout("hello\n"), value=None)._repr_mimebundle_() == {"text/plain": "hello"}
