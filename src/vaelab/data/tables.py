"""Tables of numbers: files read with pandas, and their columns as arrays.

Shapes: N rows, counted from 1 below the names in messages; C columns.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vaelab.data.array_files import Arrays
from vaelab.data.csv_files import read_csv
from vaelab.data.number_texts import (
    Decimal,
    convert_texts,
    find_decimal,
    has_numbers,
    is_missing_label,
    is_missing_number,
)
from vaelab.data.wrong_rows import first_wrong_row
from vaelab.errors import DamagedFileError, UserError, first_line, spelling_hint
from vaelab.files.regular import check_regular_file

TABLES = (".csv", ".tsv", ".parquet")


class Table(NamedTuple):
    """A table as arrays.

    Attributes:
        arrays: `train_x` [N, C]; with a label `train_labels`; and `train_NAME` of each column that
            a condition may see, of numbers as floats.
        names: Names of the columns of x.
        remarks: Phrases on how the file was read.
    """

    arrays: Arrays
    names: Sequence[str]
    remarks: tuple[str, ...]


def read_table(
    path: Path, label: str | None, leave_out: Sequence[str], columns: Sequence[str] = ()
) -> Table:
    """Reads a table as arrays; rows are counted from 1, below the names.

    Args:
        path: The file.
        label: Name of the column of labels, or None.
        leave_out: Names of columns that are not used.
        columns: Names of columns that are no part of x, see `Vectors`.

    Raises:
        UserError: If there is no such file or column, or a column is not of numbers, or a number is
            missing; DamagedFileError if the file is damaged.
    """
    check_regular_file(path)
    table = read_frame(path)
    remarks = [*table.attrs.get("remarks", ())]
    if label is None and "label" in columns and "label" in table.columns:
        label = "label"
    columns = [name for name in columns if name != "label"]
    check_columns([*table.columns], label, leave_out, columns)
    numbers = [name for name in columns if not is_class_column(table[name])]
    names = [n for n in table.columns if n != label and n not in (*leave_out, *columns)]
    if not names or not len(table):
        raise UserError("has no numbers" if names else "has no column of numbers left")
    decimal = table_decimal(table, [*names, *numbers])
    x = np.empty((len(table), len(names)))
    for i, name in enumerate(names):
        x[:, i] = column_numbers(name, table[name], decimal)
    arrays = {"train_x": x}
    if label:
        arrays["train_labels"] = column_classes(label, table[label])
    for name in columns:
        arrays[f"train_{name}"] = column_to_condition_on(name, table[name], decimal)
    if decimal == ",":
        remarks.append("numbers with decimal commas")
    return Table(arrays, names, tuple(remarks))


def check_columns(
    known: Sequence[str], label: str | None, leave_out: Sequence[str], columns: Sequence[str]
) -> None:
    """Raises UserError if a named column is none of the table's, or is named for two things."""
    settings = {
        "data.source.label": [label] if label else [],
        "data.source.leave_out": leave_out,
        "data.columns": columns,
    }
    for setting, names in settings.items():
        for name in names:
            if name not in known:
                raise UserError(f"{setting}={name}: is no column; {spelling_hint(name, known)}")
    for name in columns:
        faults = {
            "is data.source.label; data.columns=label means it": name == label,
            "is in data.source.leave_out, too": name in leave_out,
            "is what something else is called; rename this column": name in ("x", "labels"),
        }
        if fault := next((text for text, is_so in faults.items() if is_so), None):
            raise UserError(f"data.columns={name}: {fault}")


def read_frame(path: Path) -> Any:
    """Reads a table with pandas; its `attrs` have `remarks`, phrases on how it was read.

    Raises:
        UserError: If it cannot be read or has no names; DamagedFileError if it is damaged.
    """
    import pandas as pd  # slow to import

    try:
        table = pd.read_parquet(path) if path.suffix == ".parquet" else read_csv(path)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror or error})") from error
    except Exception as error:  # the parsers raise many types for a damaged file
        reason = first_line(error).rstrip(".")
        raise DamagedFileError(f"{path}: damaged, or no {path.suffix} file ({reason})") from error
    table.columns = table.columns.map(str)
    for name in table.columns:
        if "${" in name or not table.columns.is_unique:
            fault = f"{name} has ${{ in it" if "${" in name else "two columns have one name"
            raise UserError(f"{fault}; rename it")
    return table


def is_text_column(column: Any) -> bool:
    """Returns whether all values of a column that are not missing are texts, and there are some."""
    import pandas as pd

    return pd.api.types.infer_dtype(column, skipna=True) == "string" and column.notna().any()


def is_class_column(column: Any) -> bool:
    """Returns whether a column to condition on is of classes: truth, or texts, none a number."""
    import pandas as pd

    if isinstance(column.dtype, pd.CategoricalDtype) or pd.api.types.is_bool_dtype(column.dtype):
        return True
    return is_text_column(column) and not has_numbers(column.dropna().unique())


def table_decimal(table: Any, names: Sequence[str]) -> Decimal:
    """Returns the mark before the decimals of a table's numbers, see `find_decimal`."""
    texts = {name: table[name] for name in names if is_text_column(table[name])}
    return find_decimal(texts, any(table[name].dtype.kind == "f" for name in names))


def column_to_condition_on(name: str, column: Any, decimal: Decimal | None = None) -> np.ndarray:
    """Returns a column as texts [N] if it is of classes, else as float64; see `column_numbers`."""
    if is_class_column(column):
        return column_classes(name, column).astype(str)
    mixed = "numbers and texts are mixed; write all as texts for classes, as in 'size 42'"
    return column_numbers(name, column, decimal, mixed)


def column_numbers(
    name: str, column: Any, decimal: Decimal | None = None, cure: str = ""
) -> np.ndarray:
    """Returns a column of a table as float64 [N]; raises UserError for the first missing or text.

    Args:
        name: The name of the column.
        column: The pandas Series.
        decimal: The mark before the decimals where they are texts; default: by this column alone.
        cure: What to do about a text, for the message; default: to make the column a condition.
    """
    import pandas as pd

    out = f"data.source.leave_out={name} leaves the column out"
    kind = column.dtype
    is_text = is_text_column(column)
    is_numeric = pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_complex_dtype(kind)
    missing = column.isna().to_numpy()
    if is_text:
        missing = missing | column.fillna("").map(is_missing_number).to_numpy(bool)
    if missing.any():
        row = int(missing.argmax())
        cell = column.iloc[row]
        shown = f"{cell!r}" if isinstance(cell, str) and cell.strip() else "empty"
        more = int(missing.sum()) - 1
        raise UserError(
            f"column {name}, row {row + 1}: is {shown}"
            + (f", and {more} more of this column are missing" if more else "")
            + f"; missing values are not taken: fill it, or take the row out; {out}"
        )
    if is_text:
        values = convert_texts(column, decimal or find_decimal({name: column}, False))
        wrong = np.isnan(values)
        if wrong.any():
            row = int(wrong.argmax())
            raise UserError(
                f"column {name}, row {row + 1}: {column.iloc[row]!r} is no number; "
                + (cure or f"{out}, and data.columns={name} makes it a condition")
            )
    elif is_numeric:
        values = column.to_numpy(np.float64)
    else:
        values = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
        if not pd.api.types.is_object_dtype(kind) or np.isnan(values).any():
            raise UserError(f"column {name} is {kind}, and no number; {out}")
    infinite = first_wrong_row(~np.isfinite(values))
    if infinite is not None:
        raise UserError(
            f"column {name}, row {infinite + 1}: is {values[infinite]}; infinite numbers are not "
            f"taken; {out}"
        )
    return values


def column_classes(name: str, column: Any) -> np.ndarray:
    """Returns a column of labels as whole numbers or texts [N]; UserError if one is missing."""
    import pandas as pd

    missing = column.isna() | column.map(lambda v: isinstance(v, str) and is_missing_label(v))
    if missing.any():
        row = int(missing.to_numpy().argmax())
        cell = column.iloc[row]
        shown = f"is {cell!r}, a missing label" if isinstance(cell, str) else "the label is missing"
        raise UserError(f"column {name}, row {row + 1}: {shown}")
    if pd.api.types.is_numeric_dtype(column.dtype):
        return column.to_numpy()
    return column.astype(str).to_numpy(dtype=str)
