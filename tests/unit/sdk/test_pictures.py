"""Pictures on terminals, byte for byte."""

from __future__ import annotations

import base64
import io
import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from torpor._terminal import graphics, png, sixel
from torpor._terminal.pictures import Pictures, picture_of

RED_AND_BLUE = Image.frombytes("RGB", (2, 1), bytes([255, 0, 0, 0, 0, 255]))


def png_of(picture: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", **options)
    return file.getvalue()


def on_white(picture: Image.Image) -> bytes:
    layer = picture.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    white.alpha_composite(layer)
    return white.convert("RGB").tobytes()


@st.composite
def pictures(draw: st.DrawFn) -> Image.Image:
    mode = draw(st.sampled_from(["L", "RGB", "RGBA", "LA", "P"]))
    width, height = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    length = width * height * len(Image.new(mode, (1, 1)).getbands())
    # Slopes and noise, so that a writer chooses each of PNG's filters.
    slope = draw(st.integers(0, 7))
    noise = draw(st.binary(min_size=length, max_size=length))
    body = bytes((slope * place + (value if slope % 2 else 0)) & 255 for place, value in enumerate(noise))
    picture = Image.frombytes(mode, (width, height), body)
    if mode == "P":
        picture.putpalette(bytes((value * 7) & 255 for value in range(768)))
    return picture


@given(pictures())
def test_a_png_is_read_as_pillow_reads_it(picture: Image.Image) -> None:
    written = png_of(picture)
    read = png.decode(written)
    assert (read.width, read.height) == picture.size
    exact = on_white(Image.open(io.BytesIO(written)))
    assert all(abs(ours - theirs) <= 1 for ours, theirs in zip(b"".join(read.rows), exact, strict=True))


@given(st.binary(max_size=80), st.integers(0, 400))
def test_a_damaged_png_is_refused_and_nothing_worse(noise: bytes, at: int) -> None:
    whole = png_of(RED_AND_BLUE)
    for damaged in (whole[: at % len(whole)], whole[: at % len(whole)] + noise, noise, png.SIGNATURE + noise):
        with suppress(png.NotReadable):
            png.decode(damaged)


def test_a_small_file_that_claims_to_be_a_large_picture_costs_nothing() -> None:
    bomb = png_of(Image.new("L", (9000, 9000)))
    assert len(bomb) < 100_000
    with pytest.raises(png.NotReadable):
        png.decode(bomb)
    assert graphics.drawn("sixel", bomb) is None
    assert png.size_of(png_of(Image.new("L", (10_001, 1)))) is None


def pixels_of(drawing: str) -> dict[tuple[int, int], tuple[int, ...]]:
    """What a Sixel terminal would show: the inverse of `encode`, by the manual."""
    assert drawing.startswith("\x1bPq")
    assert drawing.endswith("\x1b\\")
    colours: dict[int, tuple[int, ...]] = {}
    shown: dict[tuple[int, int], tuple[int, ...]] = {}
    column = top = colour = 0
    for token in re.findall(r'"[\d;]+|#[\d;]+|!\d+.|\$|-|[?-~]', drawing[3:-2]):
        if token[0] == "#":
            colour, *definition = map(int, token[1:].split(";"))
            if definition:
                colours[colour] = tuple(definition[1:])
        elif token == "$":
            column = 0
        elif token == "-":
            column, top = 0, top + 6
        elif token[0] != '"':
            repeated, sixel_ = (int(token[1:-1]), token[-1]) if token[0] == "!" else (1, token)
            for place in range(column, column + repeated):
                for bit in range(6):
                    if (ord(sixel_) - 63) >> bit & 1:
                        shown[place, top + bit] = colours[colour]
            column += repeated
    return shown


@given(pictures())
def test_sixels_show_each_pixel_in_the_nearest_of_216_colours(picture: Image.Image) -> None:
    read = png.decode(png_of(picture))
    shown = pixels_of(sixel.encode(read))
    assert set(shown) == {(x, y) for x in range(read.width) for y in range(read.height)}
    for (x, y), shares in shown.items():
        exact = read.rows[y][3 * x : 3 * x + 3]
        assert all(abs(share * 255 / 100 - value) <= 26 for share, value in zip(shares, exact, strict=True))


def test_sixels_byte_for_byte() -> None:
    drawing = graphics.drawn("sixel", png_of(RED_AND_BLUE))
    assert drawing == '\x1bPq"1;1;2;1#5;2;0;0;100#180;2;100;0;0#5?@$#180@\x1b\\'


def test_a_picture_wider_than_the_terminal_is_made_smaller() -> None:
    drawing = graphics.drawn("sixel", png_of(Image.new("RGB", (1000, 500), "red")), width_pixels=400)
    assert drawing is not None
    assert '"1;1;334;167' in drawing


def test_kitty_gets_the_file_in_pieces_and_is_told_not_to_answer() -> None:
    picture = png_of(Image.effect_noise((70, 70), 50))
    body = base64.b64encode(picture).decode()
    assert 4096 < len(body) <= 8192
    assert graphics.drawn("kitty", picture) == (
        f"\x1b_Ga=T,f=100,q=2,m=1;{body[:4096]}\x1b\\\x1b_Gq=2,m=0;{body[4096:]}\x1b\\"
    )


def test_iterm2_gets_the_file_in_one_piece() -> None:
    picture = png_of(RED_AND_BLUE)
    body = base64.b64encode(picture).decode()
    expected = f"\x1b]1337;File=inline=1;size={len(picture)};preserveAspectRatio=1:{body}\x07"
    assert graphics.drawn("iterm2", picture) == expected


@pytest.mark.parametrize("protocol", ["kitty", "iterm2", "sixel"])
def test_what_is_no_png_is_never_sent_to_a_terminal(protocol: graphics.Protocol) -> None:
    assert graphics.drawn(protocol, b"\x1b]52;c;AAAA\x07") is None


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-ghostty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm2"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, "iterm2"),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, "iterm2"),
        ({"TERM": "xterm-256color"}, "ask"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "Apple_Terminal"}, None),
        ({"TERM": "tmux-256color", "KITTY_WINDOW_ID": "1"}, "ask"),
        ({"TERM": "screen", "LC_TERMINAL": "iTerm2"}, "ask"),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux-0/default,1,0"}, "ask"),
        ({"TERM": "dumb", "KITTY_WINDOW_ID": "1"}, None),
        ({"TERM": "linux"}, None),
        ({}, None),
    ],
)
def test_the_environment_says_what_it_can(environment: dict[str, str], found: str | None) -> None:
    assert graphics.known(environment) == found


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        ("\x1b_Gi=31;OK\x1b\\\x1b[?62;c", "kitty"),
        ("\x1b_Gi=31;OK\x1b\\\x1b[?62;4c", "kitty"),
        ("\x1b_Gi=31;EINVAL\x1b\\\x1b[?62;4c", "sixel"),
        ("\x1b[?62;4;6;22c", "sixel"),
        ("\x1b[?4;6c", None),
        ("\x1b[?1;2c", None),
        ("", None),
    ],
)
def test_a_terminal_that_was_asked_says_the_rest(answers: str, found: str | None) -> None:
    assert graphics.understood(answers) == found


def test_what_no_terminal_shows_goes_into_files_with_their_paths_printed(tmp_path: Path) -> None:
    kept = Pictures(folder=tmp_path / "kept", inline=False)
    picture = png_of(RED_AND_BLUE)
    shown = kept.show({"image/png": base64.b64encode(picture).decode(), "text/plain": "<Figure>"}, "7")
    assert shown == f"[{tmp_path}/kept/7-1.png]\n"
    assert (tmp_path / "kept" / "7-1.png").read_bytes() == picture
    assert kept.show({"image/svg+xml": "<svg/>"}, "7") == f"[{tmp_path}/kept/7-2.svg]\n"
    assert (tmp_path / "kept" / "7-2.svg").read_text() == "<svg/>"
    assert kept.show({"text/html": "<b>"}, "7") is None


def test_a_folder_that_cannot_be_written_is_a_sentence_and_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    shown = Pictures(folder=tmp_path / "file", inline=False).show({"image/svg+xml": "<svg/>"}, "7")
    assert shown is not None
    assert shown.startswith(f"[a picture; {tmp_path}/file/7-1.svg cannot be written: ")


def test_what_claims_to_be_a_picture_and_is_not_base64_is_none() -> None:
    assert picture_of({"image/png": "%%%", "image/jpeg": "!!!"}) is None
