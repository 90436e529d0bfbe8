"""Tables of comparisons, for the terminal and as Markdown."""

from collections.abc import Iterable, Sequence
from math import isnan
from pathlib import Path

from rich.console import Console
from rich.table import Table

from vaelab.files.atomic import make_folder, write_text
from vaelab.reproductions.comparison import Comparison, chosen_figures, compare_protocol
from vaelab.reproductions.protocol import protocol_names, read_protocol
from vaelab.reproductions.records import FORMS

COLUMNS = ("reproduction", "figure", "published", "ours", "gap", "reached", "seeds", "time")
HEAD = """# Reproductions

Published figures beside ours, written by `vaelab report reproductions`. The protocol of each, with
its runs, is in `conf/reproduce/`; records, curves and pictures are in the folders beside this file.

- *Published* is the figure of a paper or of other code, a bound that holds by mathematics, our
  reading of a claim, or an aim of this project; the second table says which.
- *Gate*: the short form of a protocol, in which a run fits two processor cores and an hour, has to
  pass it. It is the worst figure that passes, with ± the largest gap, and guards against a change
  for the worse: it is set near what was measured, stricter or looser than the published figure. Of
  the whole form the brackets hold what is within the protocol's tolerance.
- *Ours* has its standard error, over seeds if there are several, else over the images; that of one
  seed says nothing of other seeds.
- *Gap* is ours less the published figure.
- *Reached* is by gate or tolerance. *Outdated* is a figure whose command has other settings than
  the protocol has now; a default of vaelab that has changed since is not noticed. *Further
  settings* are such as the second table has in its command: this is not the protocol's figure.
- *Time* is that of the trainings of all runs a figure needs, on one core or two, which other
  programs may have shared; of a run that was resumed it is that of all its starts.
"""


def print_table(rows: Sequence[Comparison]) -> None:
    """Prints a table with a row for each comparison; into a file it is 120 letters wide."""
    print_rows(COLUMNS, map(cells, rows))


def print_protocols(kept: Path, protocols: Path) -> None:
    """Prints each protocol in a folder: its title, its runs, and how many figures are on record."""
    rows = []
    for name in protocol_names(protocols):
        protocol = read_protocol(protocols, name)
        rows_of = [compare_protocol(kept, name, protocol, form) for form in FORMS]
        measured = [sum(not (row.has_further or isnan(row.ours)) for row in f) for f in rows_of]
        of = [len(chosen_figures(protocol, form)) for form in FORMS]
        counts = [f"{found} of {count}" for found, count in zip(measured, of, strict=True)]
        rows.append([name, protocol.title, ", ".join(protocol.runs), *counts])
    print_rows(("protocol", "title", "runs", "full form", "short form"), rows)
    print("full form, short form: how many of the published figures are on record")
    print("vaelab reproduce PROTOCOL makes all of its runs, PROTOCOL/RUN one; --short for an hour")


def print_rows(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints a table; into a file it is 120 letters wide."""
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 120
    table = Table(*columns)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def cells(row: Comparison) -> list[str]:
    """Returns the cells of a comparison, by `COLUMNS`."""
    figure = row.figure
    bound, sign = {"lower": ("≤ ", 1), "higher": ("≥ ", -1), "equal": ("±", 0)}[figure.better]
    target = f"{'' if figure.tolerance or not sign else bound}{figure.published:g}"
    if row.form == "short" and figure.short is not None:
        if not sign or figure.short != figure.published:
            target += f" (gate {bound}{figure.short:g})"
    elif row.form == "full" and not sign:
        target += f" (±{figure.tolerance:g})"
    elif row.form == "full" and figure.tolerance:
        target += f" ({bound}{figure.published + sign * figure.tolerance:g})"
    reached = ("yes" if row.is_reached else "no") + ", further settings" * row.has_further
    places = 3 if max(abs(row.ours), abs(figure.published)) < 1 else 2  # of shares
    error = "" if row.error is None else f" ± {row.error:.{places}f}"
    return [
        row.protocol if row.form == "full" else f"{row.protocol}, short",
        f"{figure.of}: {figure.name}",
        target,
        "not measured" if isnan(row.ours) else f"{row.ours:.{places}f}{error}",
        "" if isnan(row.ours) else f"{row.gap:+.{places}f}",
        reached if row.is_current else "outdated",
        str(row.seeds),
        time_text(row.seconds),
    ]


def is_missed(row: Comparison) -> bool:
    """Returns whether a figure of the protocol's present settings is not reached."""
    return row.is_current and not row.has_further and not row.is_reached


def missed_line(row: Comparison) -> str:
    """Returns a line on a figure that is not reached: by how much, and why if that is known."""
    form, name, _, ours, gap, *_ = cells(row)
    if isnan(row.ours):
        return f"- {form}, {name}: its runs have no single number of that name"
    return f"- {form}, {name} is {ours}, a gap of {gap}: {row.figure.why or 'not explained yet'}"


def time_text(seconds: float) -> str:
    """Returns a time as `2 h 5 min`, `12 min` or `40 s`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def table_cell(text: str) -> str:
    """Returns a text as a cell of a table in Markdown: of one line, with its bars escaped."""
    return " ".join(text.split()).replace("|", "\\|")


def write_table(path: Path, rows: Sequence[Comparison]) -> None:
    """Writes the comparisons as a Markdown page, with commands and sources."""
    lines = [HEAD, f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    lines += [f"| {' | '.join(map(table_cell, cells(row)))} |" for row in rows]
    lines += ["", "| reproduction | figure | source of the published figure | command |"]
    lines += ["|---|---|---|---|"]
    for row in rows:
        name, figure, *_ = cells(row)
        source = table_cell(row.figure.source)
        lines.append(f"| {name} | {figure} | {source} | `{table_cell(row.command)}` |")
    if missed := [row for row in rows if is_missed(row)]:
        lines += ["", "Not reached:", "", *map(missed_line, missed)]
    make_folder(path.parent)
    write_text(path, "\n".join(lines) + "\n")
