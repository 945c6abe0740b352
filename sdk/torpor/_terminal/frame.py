"""Data frames as tables: pandas' HTML, read and drawn. Everything in it is a stranger's."""

from __future__ import annotations

from html.parser import HTMLParser

from .safe_text import one_line

MOST_CELLS = 20_000
LONGEST_CELL = 200
_ELLIPSIS = "…"
_GAP = 2


class Frame(HTMLParser):
    """A `<table class="dataframe">` as rows of cells."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = 0
        self.head_rows = 0
        self.rows: list[list[str]] = []
        self.note = ""
        """What stands below it: the number of rows and columns, where some are left out."""
        self._cell: list[str] | None = None
        self._span = (1, 1)
        self._in_head = False
        self._skipping = 0
        self._below: dict[int, int] = {}
        """By column: how many more rows a cell of an earlier one reaches into."""
        self._cells = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Of a row, a cell, or something around them."""
        match tag:
            case "table":
                self.tables += 1
            case "thead" | "tbody":
                self._in_head = tag == "thead"
            case "tr":
                self.rows.append([])
                self.head_rows += self._in_head
            case "th" | "td":
                spans = dict(attrs)
                self._span = _span_of(spans.get("rowspan")), _span_of(spans.get("colspan"))
                self._cell = []
            case "p":
                self._cell = []
            case "style" | "script":
                self._skipping += 1

    def handle_endtag(self, tag: str) -> None:
        """Of a cell: it is whole."""
        if tag in ("style", "script"):
            self._skipping -= 1
        elif tag == "tr" and self.rows:
            self._fill(self.rows[-1])
        if tag not in ("th", "td", "p") or self._cell is None:
            return
        text, self._cell = one_line("".join(self._cell).strip()), None
        if tag == "p":
            self.note = text[:LONGEST_CELL]
        elif self.rows:
            self._put(text if len(text) <= LONGEST_CELL else text[: LONGEST_CELL - 1] + _ELLIPSIS)

    def handle_data(self, data: str) -> None:
        """Text of a cell."""
        if self._cell is not None and not self._skipping:
            self._cell.append(data)

    def _put(self, text: str) -> None:
        down, across = self._span
        self._cells += across
        if self._cells > MOST_CELLS:
            return
        row = self.rows[-1]
        self._fill(row)
        for _ in range(across):
            if down > 1:
                self._below[len(row)] = down - 1
            row.append(text)

    def _fill(self, row: list[str]) -> None:
        """Empty ones where cells of earlier rows reach into this one, as far as they stand next in it."""
        while (left := self._below.pop(len(row), 0)) > 0 and self._cells <= MOST_CELLS:
            self._cells += 1
            if left > 1:
                self._below[len(row)] = left - 1
            row.append("")


def _span_of(text: str | None) -> int:
    return min(int(text), 1000) if text and text.isdecimal() else 1


def read(html: str) -> Frame | None:
    """The data frame in a piece of HTML; None if it holds something else."""
    if 'class="dataframe' not in html:
        return None
    frame = Frame()
    try:
        frame.feed(html)
        frame.close()
    except (AssertionError, ValueError):
        return None
    frame.rows = [row for row in frame.rows if row]
    widths = {len(row) for row in frame.rows}
    return frame if frame.tables == 1 and len(widths) == 1 and frame.head_rows < len(frame.rows) else None


def draw(frame: Frame, width: int, *, styled: bool) -> str | None:
    """The table in at most so many columns of text; None if it cannot be that narrow.

    Columns in the middle are left out if they must be, as pandas does.
    """
    from rich.cells import cell_len  # noqa: PLC0415 - slow to import, and few results are tables

    columns = [list(column) for column in zip(*frame.rows, strict=True)]
    widths = [max(map(cell_len, column)) for column in columns]
    left, right = len(columns), 0
    if sum(widths) + _GAP * (len(widths) - 1) > width:
        left, right = _fitting(widths, width - 1 - _GAP)
        if left + right < 2:
            return None
        columns = [*columns[:left], [_ELLIPSIS] * len(frame.rows), *columns[len(columns) - right :]]
        widths = [*widths[:left], 1, *widths[len(widths) - right :]]
    lines = [
        (" " * _GAP)
        .join(
            cell + " " * (wide - cell_len(cell)) if number == 0 else " " * (wide - cell_len(cell)) + cell
            for number, (cell, wide) in enumerate(zip(row, widths, strict=True))
        )
        .rstrip()
        for row in zip(*columns, strict=True)
    ]
    rule = "─" * (sum(widths) + _GAP * (len(widths) - 1))
    head, body = lines[: frame.head_rows], lines[frame.head_rows :]
    if styled:
        head = [f"\x1b[1m{line}\x1b[0m" for line in head]
        rule = f"\x1b[2m{rule}\x1b[0m"
    return "\n".join([*head, rule, *body, *([frame.note] if frame.note else [])])


def _fitting(widths: list[int], width: int) -> tuple[int, int]:
    """How many of the first and of the last columns fit, with room for one that stands for the others."""
    left = right = used = 0
    while left + right < len(widths):
        from_left = left <= right
        wide = widths[left] if from_left else widths[-1 - right]
        if used + wide + _GAP * (left + right) > width:
            break
        used += wide
        left, right = (left + 1, right) if from_left else (left, right + 1)
    return left, right
