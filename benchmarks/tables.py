"""Tables on a terminal, or as Markdown for `results/`."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

Rows = Sequence[Sequence[str]]


def show(title: str, columns: Sequence[str], rows: Rows, notes: str, as_markdown: bool) -> None:
    """Prints a table; numbers are in all columns but the first."""
    if as_markdown:
        print(f"\n{title}\n\n{markdown(columns, rows)}\n", flush=True)
    else:
        Console().print(drawn(title, columns, rows))
    if notes:
        print(notes, flush=True)


def markdown(columns: Sequence[str], rows: Rows) -> str:
    rules = ["---", *["---:"] * (len(columns) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [columns, rules, *rows])


def drawn(title: str, columns: Sequence[str], rows: Rows) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table
