"""Sources of vectors and signals: tables and array files of numbers.

Shapes: N rows of a part, which is train, val or test; C columns or channels; L steps.

A table, `.csv`, `.tsv` or `.parquet`, has a name for each column. An array file, `.npy`, `.npz` or
`.safetensors`, has an array `train_x`, and perhaps `train_labels`, further columns `train_NAME`,
and the same with `val_` and `test_`; a single array, whatever its name, is `train_x`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from pydantic import PositiveInt

from vaelab.data.array_columns import build_column
from vaelab.data.array_files import IMAGES, READERS, UNREAD, Arrays, read_arrays
from vaelab.data.arrays import PARTS, arrays_text, column_arrays, part_prefixes, zero_labels
from vaelab.data.columns import Names, name_list
from vaelab.data.splits import Splits
from vaelab.data.tables import TABLES, read_table
from vaelab.data.wrong_rows import first_wrong_row
from vaelab.errors import DamagedFileError, UserError

MIN_STEPS = 8
Convert = Callable[[str, np.ndarray], np.ndarray]


class Vectors:
    """Source of vectors: rows of numbers in a table or an array file (N, C).

    Args:
        path: The file.
        label: The column of a table that is the label; default: none.
        columns: Columns of a table, by name, that a condition may see and that are no part of x:
            numbers, or texts and booleans as classes. `label` stands for the label.
        leave_out: Columns of a table that are not used.
        num_classes: The labels are 0 to num_classes - 1; default: the labels in training.
    """

    note = "your own numbers"

    def __init__(
        self,
        path: str,
        label: str | int | None = None,
        columns: Names | None = None,
        leave_out: Names | None = None,
        num_classes: PositiveInt | None = None,
    ) -> None:
        self.path = Path(path)
        self.label = None if label is None else str(label)
        self.columns, self.leave_out = name_list(columns), name_list(leave_out)
        self.num_classes = num_classes

    def __call__(self) -> Splits:
        """Returns the data set; reads the file at each call, raises UserError if it is unfit."""
        if self.path.suffix not in TABLES:
            if self.label or self.leave_out:
                setting = "label" if self.label else "leave_out"
                raise UserError(
                    f"data.source.{setting}: is for tables, {', '.join(TABLES)}; in an "
                    f"{self.path.suffix} the labels are an array train_labels"
                )
            return read_splits(self.path, check_vectors, self.num_classes)
        try:
            table = read_table(self.path, self.label, self.leave_out, self.columns)
            splits = build_splits(table.arrays, check_vectors, self.num_classes, table.names)
        except DamagedFileError:
            raise
        except UserError as error:
            raise UserError(f"{self.path}: {error}") from error
        return replace(splits, remarks=table.remarks)


class Signals:
    """Source of signals: an array file (N, L) or (N, C, L) of at least 8 steps.

    Args:
        path: The file.
        num_classes: The labels are 0 to num_classes - 1; default: the labels in training.
    """

    note = "your own signals"

    def __init__(self, path: str, num_classes: PositiveInt | None = None) -> None:
        self.path, self.num_classes = Path(path), num_classes

    def __call__(self) -> Splits:
        """Returns the data set; reads the file at each call, raises UserError if it is unfit."""
        return read_splits(self.path, check_signals, self.num_classes)


def read_splits(path: Path, convert: Convert, num_classes: int | None) -> Splits:
    """Returns the data set in an array file; raises UserError if it is unfit.

    Args:
        path: The file.
        convert: Checks x and brings it to the shape [N, C, ...].
        num_classes: See `Vectors`.
    """
    if path.suffix in TABLES:
        raise UserError(f"{path}: a table has no signals; data=vectors reads it")
    if path.suffix not in READERS and path.exists():
        raise UserError(f"{path}: should be one of {', '.join([*TABLES, *READERS])}")
    arrays = read_arrays(path)
    try:
        return build_splits(named_parts(arrays), convert, num_classes)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def named_parts(arrays: Arrays) -> Arrays:
    """Returns arrays with `train_x` for a single array; raises UserError if there is none."""
    if IMAGES in arrays and "train_x" not in arrays:
        arrays = {
            f"{name.partition('_')[0]}_x" if name.endswith("_images") else name: values
            for name, values in arrays.items()
        }
    if len(arrays) == 1:
        arrays = {"train_x": next(iter(arrays.values()))}
    if "train_x" not in arrays:
        raise UserError(
            f"has {arrays_text(arrays)}, but should have train_x and, where there are labels, "
            "train_labels"
        )
    return arrays


def build_splits(
    arrays: Arrays, convert: Convert, num_classes: int | None, names: Sequence[str] = ()
) -> Splits:
    """Converts arrays to a data set after checks; raises UserError if one does not fit.

    Args:
        arrays: The arrays by name, see above.
        convert: Checks x and brings it to the shape [N, C, ...].
        num_classes: See `Vectors`.
        names: Names of the columns; default: their numbers, from 0.

    Raises:
        UserError: If the arrays are no data set. The message names array, row and column.
    """
    x = {
        part: convert(f"{part}_x", arrays[f"{part}_x"])
        for part in PARTS
        if len(arrays.get(f"{part}_x", UNREAD))
    }
    if "train" not in x:
        raise UserError("train_x is empty")
    for part, values in x.items():
        if values.shape[1:] != x["train"].shape[1:]:
            shapes = values.shape[1:], x["train"].shape[1:]
            raise UserError(f"{part}_x are {shapes[0]} and train_x {shapes[1]}")
        check_finite(f"{part}_x", values, names)
    counts = {part: len(values) for part, values in x.items()}
    used = [name for name in arrays if name.startswith(part_prefixes())]
    columns = dict.fromkeys(name.partition("_")[2] for name in used)
    found = {
        name: build_column(name, column_arrays(name, arrays, counts), counts, num_classes)
        for name in columns
        if name != "x"
    }
    label = found.pop("labels", None) or zero_labels(counts)
    tensors = {part: torch.from_numpy(np.ascontiguousarray(v)) for part, v in x.items()}
    channel = "" if x["train"].ndim == 2 else "channel "
    return Splits(
        train_images=tensors["train"],
        train_labels=label.train,
        val_images=tensors.get("val"),
        val_labels=label.val,
        test_images=tensors.get("test", tensors["train"][:0]),
        test_labels=label.test,
        num_classes=label.classes,
        class_names=label.names,
        columns=found,
        unused=tuple(name for name in arrays if name not in used),
        x_names=tuple(names) or tuple(f"{channel}{i}" for i in range(x["train"].shape[1])),
    )


def check_vectors(name: str, values: np.ndarray) -> np.ndarray:
    """Returns vectors [N, C]; raises UserError if they are no numbers of that shape."""
    values = native(name, values)
    if values.ndim != 2 or values.shape[1] == 0:
        raise UserError(f"{name} have shape {values.shape}, but should be (N, D){other(values)}")
    return values


def check_signals(name: str, values: np.ndarray) -> np.ndarray:
    """Returns signals as [N, C, L]; raises UserError if they are no numbers of that shape."""
    values = native(name, values)
    if values.ndim == 2:
        values = values[:, None]
    if values.ndim != 3 or values.shape[1] == 0:
        raise UserError(
            f"{name} have shape {values.shape}, but should be (N, L) or (N, C, L){other(values)}"
        )
    if values.shape[2] < MIN_STEPS:
        raise UserError(
            f"{name} have shape {values.shape}, of {values.shape[2]} steps; signals are (N, L) or "
            f"(N, C, L), of at least {MIN_STEPS} steps; data=vectors takes (N, D)"
        )
    return values


def native(name: str, values: np.ndarray) -> np.ndarray:
    """Returns an array in this machine's byte order, of a type that torch has; itself if it is.

    Raises:
        UserError: Unless it is of numbers or booleans.
    """
    if values.dtype.kind not in "biuf":
        raise UserError(f"{name} are {values.dtype}, but should be numbers")
    kind = np.dtype(np.float64) if values.dtype.itemsize > 8 else values.dtype.newbyteorder("=")
    return values.astype(kind, copy=False)


def other(values: np.ndarray) -> str:
    """Returns what takes arrays of such a shape, to go at the end of a message."""
    if values.ndim < 3:
        return ""
    fits = {3: "data=signals takes (N, C, L)", 4: "data=arrays takes images (N, C, H, W)"}
    return f"; {fits.get(values.ndim, 'volumes are not taken')}"


def check_finite(name: str, values: np.ndarray, names: Sequence[str]) -> None:
    """Raises UserError with the first row that has a missing or infinite number, and its column."""
    row = first_wrong_row(~np.isfinite(values)) if values.dtype.kind == "f" else None
    if row is not None:
        column, *_ = np.argwhere(~np.isfinite(values[row]))[0]
        where = (
            names[column] if names else f"{'column' if values.ndim == 2 else 'channel'} {column}"
        )
        wrong = values[row][column][~np.isfinite(values[row][column])].flat[0]
        raise UserError(
            f"{name}[{row}], {where}, is {wrong}; missing and infinite numbers are not taken"
        )
