"""What a language model reads of a result."""

from __future__ import annotations

import base64
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from torpor._events import Display, Event, Notice, Stderr, Stdout
from torpor._reading import cut, text_of
from torpor._result import Result, make_result
from torpor.tools import INSTRUCTIONS, PARAMETERS, render
from torpor.tools._binding import alias_of, idempotency_key

PNG = base64.b64encode(b"\x89PNG picture").decode()


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
    assert render(shown).images == (b"\x89PNG picture",)
    assert result(value=None).text == "(no output)"


def test_an_error_is_its_own_frames_and_short() -> None:
    lines = ["Traceback (most recent call last):", *(f"  frame {i}" for i in range(100)), "ValueError: bad"]
    failed = result(error="ValueError: bad", error_detail={"name": "ValueError", "message": "bad", "traceback": lines})
    assert failed.text.startswith("Traceback")
    assert failed.text.endswith("ValueError: bad")
    assert "[82 more lines]" in failed.text
    assert render(failed).is_error


def test_of_a_flood_beginning_and_end_are_kept_and_where_the_rest_is_said() -> None:
    flood = result(Stdout("first" + "x" * 10**6 + "last\n"), value="8")
    text = text_of(flood, limit_tokens=1000)
    assert len(text) < 4 * 1000
    assert text.startswith("first")
    assert "last\n8" in text
    assert "output of instruction 7 of machine mmmm" in text


@given(st.text(), st.integers(10, 100))
def test_what_is_cut_says_how_much_is_missing(text: str, characters: int) -> None:
    shown = cut(text, characters, "rest")
    whole = text.rstrip("\n")
    if len(whole) <= characters:
        assert shown == whole
    else:
        missing = len(whole) - characters
        assert f"[… {missing} characters left out; rest …]" in shown


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
    assert key != idempotency_key(conversation, "2")


def test_a_result_shows_itself_in_a_notebook() -> None:
    shown = result(Display({"image/png": PNG}), value="<table>", data={"html": "<b>8</b>"})
    assert shown._repr_mimebundle_()["text/html"] == "<b>8</b>"
    assert shown._repr_mimebundle_()["image/png"] == PNG
    assert result(Stdout("hello\n"), value=None)._repr_mimebundle_() == {"text/plain": "hello"}
