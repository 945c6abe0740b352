"""Data frames as tables on a terminal."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from torpor._terminal import frame

PANDAS = """<div>
<style scoped>
    .dataframe tbody tr th:only-of-type { vertical-align: middle; }
</style>
<table border="1" class="dataframe">
  <thead>
    <tr style="text-align: right;"><th></th><th>city</th><th>people</th></tr>
  </thead>
  <tbody>
    <tr><th>0</th><td>Bern</td><td>137000</td></tr>
    <tr><th>1</th><td>Z&uuml;rich &lt;ZH&gt;</td><td>443037</td></tr>
  </tbody>
</table>
<p>2 rows and 2 columns</p>
</div>"""
GROUPED = """<table border="1" class="dataframe">
  <thead>
    <tr><th></th><th></th><th colspan="2" halign="left">sum</th></tr>
    <tr><th></th><th></th><th>a</th><th>b</th></tr>
    <tr><th>x</th><th>y</th><th></th><th></th></tr>
  </thead>
  <tbody>
    <tr><th rowspan="2" valign="top">1</th><th>p</th><td>1</td><td>2</td></tr>
    <tr><th>q</th><td>3</td><td>4</td></tr>
    <tr><th>2</th><th>p</th><td>5</td><td>6</td></tr>
  </tbody>
</table>"""


def drawn(html: str, width: int = 80, *, styled: bool = False) -> str | None:
    found = frame.read(html)
    return None if found is None else frame.draw(found, width, styled=styled)


def wide(columns: int) -> str:
    head = "".join(f"<th>column{number}</th>" for number in range(columns))
    body = "".join(f"<td>{number}</td>" for number in range(columns))
    rows = f"<thead><tr><th></th>{head}</tr></thead><tbody><tr><th>0</th>{body}</tr></tbody>"
    return f'<table class="dataframe">{rows}</table>'


def test_a_data_frame_is_a_table_with_its_numbers_on_the_right() -> None:
    assert drawn(PANDAS) == (
        "          city  people\n"
        "──────────────────────\n"
        "0         Bern  137000\n"
        "1  Zürich <ZH>  443037\n"
        "2 rows and 2 columns"
    )  # fmt: skip


def test_its_head_is_bold_where_there_are_colours() -> None:
    assert str(drawn(PANDAS, styled=True)).startswith("\x1b[1m          city  people\x1b[0m\n\x1b[2m──")


def test_cells_over_several_rows_and_columns_have_their_places() -> None:
    assert drawn(GROUPED) == (
        "      sum  sum\n"
        "        a    b\n"
        "x  y\n"
        "──────────────\n"
        "1  p    1    2\n"
        "   q    3    4\n"
        "2  p    5    6"
    )  # fmt: skip


def test_columns_in_the_middle_give_way_on_a_narrow_terminal() -> None:
    lines = str(drawn(wide(20), width=50)).splitlines()
    assert lines[0] == "   column0  column1  …  column18  column19"
    assert max(map(len, lines)) <= 50
    assert drawn(wide(20), width=5) is None


def test_other_html_is_no_table() -> None:
    assert drawn("<b>bold</b>") is None
    assert drawn("<table><tr><td>1</td></tr></table>") is None
    assert drawn(PANDAS + PANDAS) is None
    assert drawn('<table class="dataframe">') is None


def test_a_cell_cannot_talk_to_the_terminal() -> None:
    hostile = PANDAS.replace("Bern", "\x1b]52;c;AAAA\x07&#27;[2J&#155;c\n" + "x" * 5000)
    text = str(drawn(hostile, 10_000))
    assert "\x1b" not in text
    assert "\x9b" not in text
    assert len(text.splitlines()) == 5
    assert max(map(len, text.splitlines())) < 300


def test_spans_without_bounds_cost_nothing() -> None:
    row = '<tr><td colspan="999999999" rowspan="999999999">x</td></tr>'
    assert drawn(f'<table class="dataframe">{row * 1000}</table>', 80) is None


@given(st.text(st.sampled_from('<>/"=& \n') | st.characters(), max_size=200))
def test_whatever_it_holds_it_is_drawn_or_not_and_nothing_worse(noise: str) -> None:
    for html in (f'<table class="dataframe">{noise}', PANDAS.replace("Bern", noise)):
        text = drawn(html)
        assert text is None or "\x1b" not in text
