"""Mutates tables of numbers at random: each is read right, or refused in one line.

    python benchmarks/mutated_tables.py 400

Prints, for each kind of mutation, how many tables were refused, read as they were before the
mutation, read as something else, and ended in another error. Cells are mutated so that they are no
numbers, or rows and names so that they do not fit: a wrong digit in a CSV file cannot be seen.
"""

import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vaelab.data import Vectors
from vaelab.errors import UserError

NAMES = ["a", "b", "c", "d"]
OUTCOMES = ("refused", "same", "other", "traceback")
Rows = list[list[str]]
Mutation = Callable[[Rows, random.Random], bytes]


def text_of(rows: Rows, separator: str = ",", end: str = "\n") -> bytes:
    """Returns rows of cells as the bytes of a CSV file."""
    return "".join(separator.join(row) + end for row in rows).encode()


def with_cell(*texts: str) -> Mutation:
    """Returns a mutation that puts one of the texts into a random cell below the names."""

    def mutate(rows: Rows, chance: random.Random) -> bytes:
        row = chance.choice(rows[1:])
        row[chance.randrange(len(row))] = chance.choice(texts)
        return text_of(rows)

    return mutate


def with_row(change: Callable[[list[str], random.Random], object]) -> Mutation:
    """Returns a mutation that changes a random row below the names in place."""

    def mutate(rows: Rows, chance: random.Random) -> bytes:
        change(chance.choice(rows[1:]), chance)
        return text_of(rows)

    return mutate


def with_byte(*inserted: bytes) -> Mutation:
    """Returns a mutation that inserts bytes between two cells below the names."""

    def mutate(rows: Rows, chance: random.Random) -> bytes:
        content = text_of(rows)
        places = [i for i, byte in enumerate(content) if byte == ord(",") and i > 10]
        place = chance.choice(places) + 1
        return content[:place] + chance.choice(inserted) + content[place:]

    return mutate


def with_name(change: Callable[[list[str], random.Random], object]) -> Mutation:
    """Returns a mutation that changes the names of the columns in place."""

    def mutate(rows: Rows, chance: random.Random) -> bytes:
        change(rows[0], chance)
        return text_of(rows)

    return mutate


def twice(names: list[str], chance: random.Random) -> None:
    """Gives one column the name of another, in place."""
    first, second = chance.sample(range(len(names)), 2)
    names[first] = names[second]


def with_commas(rows: Rows) -> Rows:
    """Returns rows of cells with decimal commas."""
    return [[cell.replace(".", ",") for cell in row] for row in rows]


def doubtful(rows: Rows, chance: random.Random) -> bytes:
    """Returns a table of whole numbers but one, such as 1,234, which is in quotes."""
    whole = [rows[0], *([cell.partition(".")[0] for cell in row] for row in rows[1:])]
    whole[chance.randrange(1, len(whole))][chance.randrange(4)] = '"1,234"'
    return text_of(whole)


REFUSED: dict[str, Mutation] = {
    "a cell is a text": with_cell("Paris", "1.2.3", "12a", "--", "1 00", "0x", "'1'", "$3"),
    "a cell is empty or missing": with_cell("", "nan", "NaN", "NA", "null", "N/A", "#N/A", "None"),
    "a cell is infinite": with_cell("inf", "-inf", "1e999", "Infinity"),
    "a row lacks a cell": with_row(lambda row, chance: row.pop(chance.randrange(len(row)))),
    "a row has a cell more": with_row(lambda row, chance: row.append("1")),
    "a byte is no text": with_byte(b"\xff", b"\xc3("),
    "a quote is open": with_byte(b'"'),
    "two columns have one name": with_name(twice),
    "a name is empty": with_name(lambda names, chance: names.__setitem__(chance.randrange(4), "")),
    "the names are missing": lambda rows, chance: text_of(rows[1:]),
    "a cell may be of thousands or have decimals": doubtful,
    "some have points and some commas": lambda rows, chance: text_of(
        [rows[0], *([row[0].replace(".", ","), *row[1:]] for row in rows[1:])], ";"
    ),
    "the file is empty or names alone": lambda rows, chance: text_of(rows[: chance.randrange(2)]),
}
KEPT: dict[str, Mutation] = {
    "line ends of Windows": lambda rows, chance: text_of(rows, end="\r\n"),
    "a byte order mark": lambda rows, chance: b"\xef\xbb\xbf" + text_of(rows),
    "spaces after commas": lambda rows, chance: text_of(rows, ", "),
    "empty lines at the end": lambda rows, chance: text_of(rows) + b"\n\n",
    "cells in quotes": lambda rows, chance: text_of([[f'"{c}"' for c in row] for row in rows]),
    "cells are between semicolons": lambda rows, chance: text_of(rows, ";"),
    "cells are between tabs": lambda rows, chance: text_of(rows, "\t"),
    "decimal commas between semicolons": lambda rows, chance: text_of(with_commas(rows), ";"),
    "decimal commas in quotes": lambda rows, chance: text_of(
        [[f'"{c}"' for c in row] for row in with_commas(rows)]
    ),
    "a separator at all ends": lambda rows, chance: text_of(rows, end=",\n"),
    "comments above": lambda rows, chance: b"# by us\n" + text_of(rows),
    "names in a comment": lambda rows, chance: b"# " + text_of(rows),
    "letters of UTF-16": lambda rows, chance: text_of(rows).decode().encode("utf-16"),
    "no end of the last line": lambda rows, chance: text_of(rows).rstrip(b"\n"),
}


def outcome(path: Path, expected: np.ndarray) -> str:
    """Reads a table, and returns what came of it."""
    try:
        splits = Vectors(str(path))()
    except UserError as error:
        return "refused" if "\n" not in str(error) else "traceback"
    except Exception:  # whatever should not be raised
        return "traceback"
    found = np.asarray(splits.train_images)
    same = found.shape == expected.shape and np.allclose(found, expected, rtol=1e-12)
    return "same" if same and [*splits.x_names] == NAMES else "other"


def main(count: int) -> None:
    """Prints the table of outcomes of `count` mutated tables."""
    chance, counts = random.Random(0), {name: Counter() for name in REFUSED | KEPT}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        for name in (chance.choice([*counts]) for _ in range(count)):
            values = np.random.default_rng(chance.randrange(10**6)).normal(size=(12, 4)) * 100
            rows = [NAMES[:], *([repr(float(v)) for v in row] for row in values)]
            path.write_bytes((REFUSED | KEPT)[name](rows, chance))
            counts[name][outcome(path, values)] += 1
    print(f"| mutation | expected | {' | '.join(OUTCOMES)} |")
    print(f"| --- | --- |{' ---: |' * len(OUTCOMES)}")
    for name, found in counts.items():
        wanted = "refused" if name in REFUSED else "same"
        print(f"| {name} | {wanted} | {' | '.join(str(found[o]) for o in OUTCOMES)} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400)
