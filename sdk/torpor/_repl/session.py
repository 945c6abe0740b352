"""The prompt: editing of whole cells, highlighting, history, completion."""

from __future__ import annotations

from collections.abc import Callable

from prompt_toolkit import PromptSession
from prompt_toolkit.application.current import get_app
from prompt_toolkit.completion import Completer
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import Condition, has_completions, has_focus
from prompt_toolkit.history import History
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.lexers import PygmentsLexer
from prompt_toolkit.shortcuts import CompleteStyle
from pygments.lexers import PythonLexer

from .._terminal import colours
from .cell import is_complete, next_indent

PROMPT = ">>> "
CONTINUATION = "... "


def make_prompt(history: History, completer: Completer) -> Callable[[], str]:
    """Returns a whole cell each time that it is called. Ctrl-C raises KeyboardInterrupt, Ctrl-D EOFError.

    A terminal that knows nothing but text edits lines by itself.
    """
    if colours.is_dumb():
        return _plain_cell
    session: PromptSession[str] = PromptSession(
        PROMPT,
        multiline=True,
        prompt_continuation=CONTINUATION,
        key_bindings=_bindings(),
        history=history,
        enable_history_search=True,
        completer=completer,
        complete_in_thread=True,
        complete_while_typing=False,
        complete_style=CompleteStyle.MULTI_COLUMN,
        reserve_space_for_menu=6,
        lexer=PygmentsLexer(PythonLexer),
    )
    return session.prompt


def _plain_cell() -> str:
    text = input(PROMPT)
    while not (_is_command(text) or is_complete(text)):
        text += f"\n{input(CONTINUATION)}"
    return text


def _is_command(text: str) -> bool:
    return text.startswith(":")


@Condition
def _in_indentation() -> bool:
    return not get_app().current_buffer.document.current_line_before_cursor.strip()


def _bindings() -> KeyBindings:
    bindings = KeyBindings()
    editing = has_focus(DEFAULT_BUFFER)

    @bindings.add("enter", filter=editing)
    def _enter(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if _is_command(buffer.text) or (is_complete(buffer.text) and not buffer.document.text_after_cursor.strip()):
            buffer.validate_and_handle()
        else:
            _new_line(event)

    @bindings.add("escape", "enter", filter=editing)
    def _escape_enter(event: KeyPressEvent) -> None:
        _new_line(event)

    @bindings.add("tab", filter=editing & _in_indentation & ~has_completions)
    def _tab(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("    ")

    return bindings


def _new_line(event: KeyPressEvent) -> None:
    buffer = event.current_buffer
    buffer.insert_text("\n" + next_indent(buffer.document.text_before_cursor))
