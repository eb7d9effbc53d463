"""Tables that fit: columns give way to the width of the terminal, nothing ever wraps. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

GAP = 2

STATUS_STYLES = {
    "pending": "yellow",
    "scheduled": "yellow",
    "assigned": "cyan",
    "dispatched": "cyan",
    "running": "bold cyan",
    "apply_pending": "bold magenta",
    "cancelling": "magenta",
    "completed": "green",
    "failed": "bold red",
    "timeout": "bold red",
    "cancelled": "bright_black",
    # of workers and slots
    "active": "green",
    "idle": "green",
    "suspect": "yellow",
    "draining": "yellow",
    "reserved": "magenta",
    "lost": "bold red",
}


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column. It may shrink to `narrow` cells, if given; columns with a higher `leaves` are left out first, 0 never.

    `styled` colours cells by the status that they hold.
    """

    title: str
    narrow: int | None = None
    leaves: int = 0
    align_right: bool = False
    style: str = ""
    styled: bool = False


def layout(columns: Sequence[Column], rows: Iterable[Sequence[str]], width: int | None) -> list[Text]:
    """The lines of a table, its head first, within `width` cells; None for as wide as it is."""
    cells = [tuple(row) for row in rows]
    natural = [
        max(cell_len(text) for text in (column.title, *(row[i] for row in cells))) for i, column in enumerate(columns)
    ]
    widths = _fit(columns, natural, width)
    # A column without any content says nothing.
    widths = {i: w for i, w in widths.items() if columns[i].leaves == 0 or not cells or any(row[i] for row in cells)}
    head = _line([(columns[i].title, "bold", w, columns[i].align_right) for i, w in widths.items()])
    lines = [
        _line([(row[i], _style(columns[i], row[i]), w, columns[i].align_right) for i, w in widths.items()])
        for row in cells
    ]
    return [head, *lines]


def status_style(status: str) -> str:
    """The colour of a status."""
    return STATUS_STYLES.get(status, "")


def _fit(columns: Sequence[Column], natural: Sequence[int], width: int | None) -> dict[int, int]:
    """The widths of the columns that stay, by their index."""
    kept = dict(enumerate(natural))
    if width is None:
        return kept
    least = {i: min(columns[i].narrow or natural[i], natural[i]) for i in kept}
    while sum(least.values()) + GAP * (len(least) - 1) > width:
        leaving = max(least, key=lambda i: columns[i].leaves)
        if columns[leaving].leaves == 0:
            break
        del least[leaving]
    room = width - sum(least.values()) - GAP * (len(least) - 1)
    for i in sorted(least, key=lambda i: natural[i] - least[i]):
        waiting = sum(1 for j in least if least[j] < natural[j])
        if waiting and room > 0 and least[i] < natural[i]:
            more = min(room // waiting, natural[i] - least[i])
            least[i] += more
            room -= more
    return least


def _line(cells: Sequence[tuple[str, str, int, bool]]) -> Text:
    line = Text(no_wrap=True)
    for number, (content, style, width, align_right) in enumerate(cells):
        text = Text(content, style=style)
        text.truncate(width, overflow="ellipsis")
        if align_right:
            text.align("right", width)
        elif number < len(cells) - 1:
            text.pad_right(width - text.cell_len)
        line.append(" " * GAP if number else "")
        line.append_text(text)
    line.rstrip()
    return line


def _style(column: Column, content: str) -> str:
    return status_style(content) if column.styled else column.style
