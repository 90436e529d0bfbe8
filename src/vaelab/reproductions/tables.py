"""Tables of comparisons, for the terminal and as Markdown."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from vaelab.files.atomic import make_folder, write_text
from vaelab.reproductions.comparison import Comparison, compare_protocol
from vaelab.reproductions.protocol import protocol_names, read_protocol
from vaelab.reproductions.records import FORMS

COLUMNS = ("reproduction", "figure", "published", "ours", "gap", "reached", "seeds", "time")
HEAD = """# Reproductions

Published figures beside ours, written by `vaelab report reproductions`. The protocol of each, with
its runs, is in `conf/reproduce/`; records, curves and pictures are in the folders beside this file.
*Published* is the figure of a paper, or a bound whose reason is in the second table. The short form
of a protocol, in which a run fits two processor cores and an hour, has a *gate* instead: the worst
figure that passes, with ± the largest gap; of the whole form the brackets hold what is within the
protocol's tolerance. *Reached* is by these. Ours has its standard error, over seeds if there are
several, else over the images; that of one seed says nothing of other seeds. *Gap* is ours less the
published figure. *Time* is that of the trainings of all runs a figure needs, on one core, which
other programs may have shared. *Outdated* are figures of other settings than the protocol has now.
"""


def print_table(rows: Sequence[Comparison]) -> None:
    """Prints a table with a row for each comparison; into a file it is 120 letters wide."""
    print_rows(COLUMNS, map(cells, rows))


def print_protocols(kept: Path, protocols: Path) -> None:
    """Prints each protocol in a folder: its title, its runs, and how many figures are on record."""
    rows = []
    for name in protocol_names(protocols):
        protocol = read_protocol(protocols, name)
        measured = [len(compare_protocol(kept, name, protocol, form)) for form in FORMS]
        of = [len(protocol.figures), sum(f.short is not None for f in protocol.figures)]
        counts = [f"{found} of {count}" for found, count in zip(measured, of, strict=True)]
        rows.append([name, protocol.title, ", ".join(protocol.runs), *counts])
    print_rows(("protocol", "title", "runs", "measured", "short form"), rows)
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
    places = 3 if max(abs(row.ours), abs(figure.published)) < 1 else 2  # of shares
    return [
        row.protocol if row.form == "full" else f"{row.protocol}, short",
        f"{figure.of}: {figure.name}",
        target,
        f"{row.ours:.{places}f}" + (f" ± {row.error:.{places}f}" if row.error is not None else ""),
        f"{row.gap:+.{places}f}",
        ("yes" if row.is_reached else "no") if row.is_current else "outdated",
        str(row.seeds),
        time_text(row.seconds),
    ]


def missed_line(row: Comparison) -> str:
    """Returns a line on a figure that is not reached: by how much, and why if that is known."""
    form, name, _, ours, gap, *_ = cells(row)
    return f"- {form}, {name} is {ours}, a gap of {gap}: {row.figure.why or 'not explained yet'}"


def time_text(seconds: float) -> str:
    """Returns a time as `2 h 5 min`, `12 min` or `40 s`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def write_table(path: Path, rows: Sequence[Comparison]) -> None:
    """Writes the comparisons as a Markdown page, with commands and sources."""
    lines = [HEAD, f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    lines += [f"| {' | '.join(cells(row))} |" for row in rows]
    lines += ["", "| reproduction | figure | source of the published figure | command |"]
    lines += ["|---|---|---|---|"]
    for row in rows:
        name, figure, *_ = cells(row)
        lines.append(f"| {name} | {figure} | {row.figure.source} | `{row.command}` |")
    if missed := [row for row in rows if row.is_current and not row.is_reached]:
        lines += ["", "Not reached:", "", *map(missed_line, missed)]
    make_folder(path.parent)
    write_text(path, "\n".join(lines) + "\n")
