"""Paths and tables as the screen shows them."""

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.table import Table


def here(path: Path) -> Path:
    """A path as the user would type it."""
    path = path.absolute()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def pasted(path: Path) -> str:
    """A path as the user can paste it into a shell."""
    return shlex.quote(str(here(path)))


def table(title: str, rows: Iterable[Sequence[str]], *columns: str) -> Table:
    """Metrics for the screen: their names, and columns of figures."""
    grid = Table("metric", title=title, title_justify="left")
    for column in columns:
        grid.add_column(column, justify="right")
    for row in rows:
        grid.add_row(*row)
    return grid
