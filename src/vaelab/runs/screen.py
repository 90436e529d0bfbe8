"""Paths and tables as text for the terminal."""

import shlex
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.table import Table


def relative_path(path: Path) -> Path:
    """Returns a path relative to the working folder if it is below it, otherwise absolute."""
    path = path.absolute()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def shell_path(path: Path) -> str:
    """Returns a path, relative if below the working folder, quoted for the shell.

    Control characters in it are escaped.
    """
    return printable(shlex.quote(str(relative_path(path))))


def printable(text: str) -> str:
    """Returns a text with control characters escaped, but for line breaks.

    A terminal obeys those that stand in the names of files and settings of somebody else.
    """
    return "".join(
        letter.encode("unicode_escape").decode()
        if unicodedata.category(letter) in ("Cc", "Cf", "Cs") and letter != "\n"
        else letter
        for letter in text
    )


def metrics_table(title: str, rows: Iterable[Sequence[str]], *columns: str) -> Table:
    """Builds a rich table of metrics: their names, and right-aligned columns of figures."""
    grid = Table("metric", title=title, title_justify="left")
    for column in columns:
        grid.add_column(column, justify="right")
    for row in rows:
        grid.add_row(*row)
    return grid
