"""Tables that never wrap numbers, however narrow the terminal is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zsar_cli.text.plain_text import printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.table import Table

TEXT_LEAST = 10  # columns that texts keep before a table becomes a list
GAP = 2  # blanks between columns


@dataclass(frozen=True)
class FittingTable:
    """A table for Rich: headings and text wrap first; if numbers still do not fit, each row becomes a list."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str | None = None
    texts: Sequence[str] = ()  # names of columns that are texts, besides the first one
    last_bold: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        """Render a table, or lists if it is too wide."""
        from rich.measure import Measurement

        table = self._table(fixed=False)
        if Measurement.get(console, options.update(width=10_000), table).maximum <= options.max_width:
            yield table
        elif sum(self._least(number) + GAP for number in range(len(self.columns))) <= options.max_width:
            yield self._table(fixed=True)
        else:
            yield from self._lists()

    def _is_text(self, number: int) -> bool:
        return number == 0 or self.columns[number] in self.texts

    def _least(self, number: int) -> int:
        """Compute the least width of a column: its longest number or word of the heading."""
        from rich.cells import cell_len

        if self._is_text(number):
            return TEXT_LEAST
        words = [*self.columns[number].split(), *(printable(row[number]) for row in self.rows)]
        return max(cell_len(word) for word in words)

    def _table(self, *, fixed: bool) -> Table:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        title = self.title and Text(printable(self.title))
        table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for number, column in enumerate(self.columns):
            text = self._is_text(number)
            width = self._least(number) if fixed and not text else None
            table.add_column(column, justify="left" if text else "right", overflow="fold", width=width)
        for number, row in enumerate(self.rows):
            style = "bold" if self.last_bold and number == len(self.rows) - 1 else None
            table.add_row(*(Text(printable(cell)) for cell in row), style=style)
        return table

    def _lists(self) -> Iterator[Any]:
        """Render each row as its first cell followed by one line per column."""
        from rich.text import Text

        if self.title:
            yield Text(printable(self.title), style="italic")
        width = max(len(column) for column in self.columns[1:])
        for first, *cells in self.rows:
            yield Text(printable(first), style="bold", overflow="fold")
            for column, cell in zip(self.columns[1:], cells, strict=True):
                yield Text(f"  {column:{width}}  {printable(cell)}", overflow="fold")
