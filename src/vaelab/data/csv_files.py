"""Tables as text: encoding, separator, names of columns and cells of a CSV file."""

import codecs
import csv
import io
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from vaelab.data.number_texts import is_number_text
from vaelab.errors import DamagedFileError, UserError, first_line

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
"""What may stand between cells, and its name in remarks."""
SAMPLE = 200  # lines by which the separator is found
BLOCK = 2**20  # bytes that are decoded at a time


@dataclass(frozen=True)
class Head:
    """What the first lines of a CSV file say of it.

    Attributes:
        encoding: As Python names it.
        separator: What stands between cells.
        names: Names of the columns; the last is empty if all rows end with a separator.
        lines: Lines up to and with the names.
    """

    encoding: str
    separator: str
    names: tuple[str, ...]
    lines: int


def read_csv(path: Path) -> Any:
    """Reads a CSV file as a DataFrame of numbers, booleans and texts, with `remarks` in `attrs`.

    Only empty cells are NaN. Left out are a last column without name and cells, a first one without
    name that counts the rows, as pandas writes it, and above the names comments, lines with `#`.

    Raises:
        UserError: If there are no names, two are the same, or a row has more cells; or
            DamagedFileError if it cannot be parsed for another reason.
    """
    import pandas as pd  # slow to import

    usual = "\t" if path.suffix == ".tsv" else ","
    head = read_head(path, usual)
    check_names(head)
    try:
        with opened(path, head.encoding) as file, warnings.catch_warnings(action="error"):
            for _ in range(head.lines):
                file.readline()
            table = pd.read_csv(
                file,
                sep=head.separator,
                header=None,
                names=[*range(len(head.names))],
                index_col=False,
                low_memory=False,
                skipinitialspace=True,
                keep_default_na=False,
                na_values=[""],
            )
    except (OSError, UserError):
        raise
    except Exception as error:  # the parsers raise many types, and warn of cells that they drop
        check_widths(path, head)
        reason = first_line(error).rstrip(".")
        raise DamagedFileError(f"{path}: damaged, or no {path.suffix} file ({reason})") from error
    table.columns = [*head.names]
    remarks = []
    if not head.names[-1]:
        if table.iloc[:, -1].notna().any():
            check_widths(path, head)
            raise UserError(f"column {len(head.names)} has no name; give it one")
        table = table.iloc[:, :-1]
    if not head.names[0]:
        first = table.iloc[:, 0]
        if not any(first.equals(pd.Series(range(i, i + len(first)))) for i in (0, 1)):
            raise UserError("column 1 has no name; give it one, and leave it out by its name")
        table = table.iloc[:, 1:]
        remarks.append("the first column counts the rows, and is left out")
    if head.separator != usual:
        remarks.append(f"cells between {SEPARATORS[head.separator]}")
    if head.encoding == "cp1252":
        remarks.append("letters as of Windows (cp1252), for they are not UTF-8")
    table.attrs["remarks"] = remarks
    return table


@contextmanager
def opened(path: Path, encoding: str) -> Iterator[io.TextIOWrapper]:
    """Context manager: the file as text with its own line ends; UserError if it is none."""
    try:
        with path.open(encoding=encoding, newline="") as file:
            yield file
    except UnicodeError as error:
        raise UserError("is no text in UTF-8; save it as CSV in UTF-8") from error


def read_head(path: Path, usual: str) -> Head:
    """Reads encoding, separator and names of a CSV file; raises UserError if it is no text.

    Lines that are empty, or begin with `#`, are passed over above the names. If no names are below,
    the last comment has them, as `numpy.savetxt` writes it. A line `sep=;` names the separator, as
    for Excel.

    Args:
        path: The file.
        usual: The separator if nothing speaks for another.
    """
    encoding = find_encoding(path)
    with opened(path, encoding) as file:
        lines = [*islice(file, SAMPLE)]
    first = 0
    named: str | None = None
    comment = None
    for line in lines:
        bare = line.strip()
        if bare[:4].lower() == "sep=" and len(bare) == 5:
            named = bare[4]
        elif bare.startswith("#"):
            comment = first
        elif bare:
            break
        first += 1
    if first == len(lines):
        raise UserError("is empty")
    if len(lines) == SAMPLE and '"' in lines[-1]:
        lines.pop()  # a quote may be open
    separator = named or find_separator(lines[first:], usual)
    below = rows_of(lines[first:], separator)
    names = next(below)
    if comment is not None and all(map(is_number_text, names)):
        above = next(rows_of([lines[comment].lstrip("# ")], separator), [])
        if len(above) == len(names):
            return Head(encoding, separator, tuple(map(str.strip, above)), first)
    after = next(below, names)
    if len(after) == len(names) + 1 and names[-1] and not after[-1]:
        names = [*names, ""]
    if any("\n" in name or "\r" in name for name in names):
        raise UserError(f"the name {next(n for n in names if len(n.splitlines()) > 1)!r} is broken")
    return Head(encoding, separator, tuple(map(str.strip, names)), first + 1)


def find_encoding(path: Path) -> str:
    """Returns the encoding of a text file: UTF-8, UTF-16 by its mark, or else that of Windows.

    Numbers are the same in all that Windows has had; letters of names may be others.

    Raises:
        UserError: If it has zero bytes, as files that are no text.
    """
    with path.open("rb") as file:
        content = file.read(BLOCK)
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16"
        if b"\0" in content:
            raise UserError("is no text; save it as CSV in UTF-8")
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            while content:
                decoder.decode(content)
                content = file.read(BLOCK)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "cp1252"
    return "utf-8-sig"


def find_separator(lines: Sequence[str], usual: str) -> str:
    """Returns the separator by which all lines have as many cells, and most of them numbers.

    If there is none, it is the one by which the first line has most cells.
    """
    every = [usual, *(s for s in SEPARATORS if s != usual)]
    found = {separator: [*rows_of(lines, separator)] for separator in every}
    fits = [s for s in every if len({*map(len, found[s])}) == 1 and len(found[s][0]) > 1]
    if fits:
        return min(fits, key=lambda s: sum(not is_number_text(c) for row in found[s] for c in row))
    return max(every, key=lambda s: len(found[s][0]))


def rows_of(lines: Iterable[str], separator: str) -> Iterator[list[str]]:
    """Yields the cells of each row that is not empty; stops where the lines cannot be parsed."""
    try:
        yield from filter(None, csv.reader(lines, delimiter=separator, skipinitialspace=True))
    except csv.Error:
        return


def check_names(head: Head) -> None:
    """Raises UserError if the first line is not the names of the columns, or two are the same."""
    names = head.names
    numbers = [i for i, name in enumerate(names) if is_number_text(name)]
    if numbers and not are_counted([names[i] for i in numbers]):
        shown = head.separator.join(names[:4]) + (head.separator + "..." if names[4:] else "")
        raise UserError(
            f"the first line should be the names of the columns, and is {shown}; write them above, "
            "and not as numbers"
        )
    if "" in names[1:-1] or names == ("",):
        place = names[1:].index("") + 2 if names != ("",) else 1
        raise UserError(f"column {place} has no name; give it one")
    named = [name for name in names if name]
    if len(set(named)) < len(named):
        raise UserError(f"two columns are called {max(named, key=named.count)!r}; rename one")


def are_counted(names: Sequence[str]) -> bool:
    """Returns whether names are whole numbers in sequence: from 0 or 1 on, or three or more.

    Such names are those that pandas gives, pixels or years; others are cells.
    """
    if not all(name.isdecimal() for name in names):
        return False
    first = int(names[0])
    in_sequence = [int(name) for name in names] == [*range(first, first + len(names))]
    return in_sequence and (first == 0 or len(names) > 2 or (first == 1 and len(names) > 1))


def check_widths(path: Path, head: Head) -> None:
    """Raises UserError with the first row that has more cells than there are names, if any."""
    with opened(path, head.encoding) as file:
        for _ in range(head.lines):
            file.readline()
        width = len(head.names) - (not head.names[-1])
        mark = "a comma" if head.separator == "," else "a separator"
        for count, row in enumerate(rows_of(file, head.separator), start=1):
            if len(row) > width and any(row[width:]):
                cells = f"{len(row)} cell{'s' * (len(row) > 1)}"
                raise UserError(
                    f"row {count} has {cells}, the last {row[-1][:40]!r}, and there are {width} "
                    f'names; a cell that has {mark} in it goes in quotes, as "1,5"'
                )
