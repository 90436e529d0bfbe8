"""Validation and conversion of arrays of classes or of numbers to columns."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from vaelab.data.columns import Column
from vaelab.data.wrong_rows import first_wrong_row
from vaelab.errors import UserError

MAX_CLASSES = 1000
MISSING = ("", "nan", "NaN", "<NA>", "NaT")
"""Texts that numpy and pandas make of a label that is not known."""


def build_column(
    name: str,
    values: Mapping[str, np.ndarray],
    counts: Mapping[str, int],
    num_classes: int | None,
    order: Sequence[str] = (),
) -> Column:
    """Returns a column of numbers if train is floats, except for labels, else one of classes.

    Labels are classes even if they are floats. Raises UserError if a part is unfit; `num_classes`
    is for labels only. See `build_class_column` for `order`.
    """
    if values["train"].dtype.kind == "f" and name != "labels":
        return build_number_column(name, values, counts)
    count = num_classes if name == "labels" else None
    return build_class_column(name, values, counts, count, order)


def build_number_column(
    name: str, values: Mapping[str, np.ndarray], counts: Mapping[str, int]
) -> Column:
    """Returns a column of numbers; raises UserError if a part is unfit or of another width."""
    found = {part: convert_numbers(f"{part}_{name}", v, counts[part]) for part, v in values.items()}
    for part, others in found.items():
        if others.shape[1] != found["train"].shape[1]:
            raise UserError(
                f"{part}_{name} are {others.shape[1]} wide "
                f"and train_{name} {found['train'].shape[1]}"
            )
    return Column(found["train"], found.get("test", found["train"][:0]), val=found.get("val"))


def convert_numbers(name: str, values: np.ndarray, count: int) -> Tensor:
    """Returns numbers as float32 [count, W]; raises UserError if not `count` rows of finite floats.

    Accepts [count, W], and [count] as W = 1.
    """
    if values.ndim not in (1, 2) or len(values) != count or values.size == 0:
        raise UserError(
            f"{name} have shape {values.shape}, but should be ({count},) or ({count}, W)"
        )
    if values.dtype.kind != "f":
        raise UserError(f"{name} should be floats, as train_{name.partition('_')[2]} are")
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    row = first_wrong_row(~np.isfinite(single))
    if row is not None:
        wrong = values[row].reshape(-1)[~np.isfinite(single[row]).reshape(-1)][0]
        why = ", which is too large for single precision" if np.isfinite(wrong) else ""
        raise UserError(f"{name}[{row}] is {wrong:g}{why}")
    return torch.from_numpy(single.reshape(count, -1))


def build_class_column(
    name: str,
    values: Mapping[str, np.ndarray],
    counts: Mapping[str, int],
    num_classes: int | None,
    order: Sequence[str] = (),
) -> Column:
    """Returns a column of class indices; raises UserError for unknown or too many classes.

    Known are the classes that occur in training. With `num_classes` the classes are the whole
    numbers below it, whether they occur in training or not. With `order`, the names of the classes,
    whole numbers are places in it, and texts are found there; one that does not fit is not used.
    """
    found = {part: convert_classes(f"{part}_{name}", v, counts[part]) for part, v in values.items()}
    if order and num_classes in (None, len(order)):
        every = {part: places_in(some, order) for part, some in found.items()}
        placed = {part: some for part, some in every.items() if some is not None}
        if len(placed) == len(found):
            test, val = placed.get("test", placed["train"][:0]), placed.get("val")
            return Column(placed["train"], test, len(order), val=val, names=tuple(order))
    names = np.unique(found["train"])
    if num_classes is not None:
        names = np.arange(num_classes)
    elif len(names) > MAX_CLASSES or (counts["train"] >= 20 and 2 * len(names) > counts["train"]):
        raise UserError(
            f"train_{name} are of {len(names):,} classes, too many for {counts['train']:,} "
            "rows; numbers are floats"
        )
    coded = {part: class_indices(f"{part}_{name}", v, names) for part, v in found.items()}
    return Column(
        coded["train"],
        coded.get("test", coded["train"][:0]),
        len(names),
        val=coded.get("val"),
        names=tuple(map(str, names)),
    )


def convert_classes(name: str, values: np.ndarray, count: int) -> np.ndarray:
    """Returns classes [count] as int64 or texts, also of one-hot rows; raises UserError if unfit.

    Accepts one-hot rows [count, K], texts and whole numbers of any type from 0 on; decodes bytes.
    """
    if values.dtype.kind in "biuf" and values.ndim == 2 and is_one_hot(values):
        values = values.argmax(1)
    if values.shape == (count, 1):
        values = values[:, 0]
    if values.shape != (count,):
        raise UserError(f"{name} have shape {values.shape}, but should be ({count},)")
    if values.dtype.kind == "O" and all(isinstance(value, str) for value in values):
        values = values.astype(str)  # a column of texts of pandas
    if values.dtype.kind == "S":
        values = decode_texts(name, values)
    if values.dtype.kind == "U":
        check_texts(name, values)
        row = first_wrong_row(np.isin(values, MISSING))
        if row is not None:
            raise UserError(f"{name}[{row}] is {str(values[row])!r}, a missing label")
        return values
    if values.dtype.kind not in "biuf":
        raise UserError(f"{name} are {values.dtype}, but should be whole numbers or texts")
    whole = values.astype(np.float64)
    row = first_wrong_row(~((whole >= 0) & (whole < 2**53) & (whole == np.floor(whole))))
    if row is not None:
        raise UserError(f"{name}[{row}] is {values[row]}; labels are 0, 1, ... or texts")
    return values.astype(np.int64)


def decode_texts(name: str, values: np.ndarray) -> np.ndarray:
    """Returns bytes as texts; raises UserError if they are not in UTF-8, for none may be lost."""
    try:
        return np.char.decode(values, "utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: {error.object!r} is no text in UTF-8") from error


def check_texts(name: str, values: np.ndarray) -> None:
    """Raises UserError if a text [N] has a code that is no character, as damaged files have."""
    if not values.dtype.itemsize:  # all texts are empty
        return
    kind = np.dtype(np.uint32).newbyteorder(values.dtype.byteorder)
    codes = np.ascontiguousarray(values).view(kind)
    wrong = (codes > 0x10FFFF) | ((codes >= 0xD800) & (codes < 0xE000))
    row = first_wrong_row(wrong.reshape(len(values), -1))
    if row is not None:
        raise UserError(f"{name}[{row}] is no text: it has codes that are no characters")


def is_one_hot(values: np.ndarray) -> bool:
    """Returns whether each row of [N, K], K > 1, is a single one among zeros."""
    if values.shape[1] < 2:
        return False
    return bool(((values == 0) | (values == 1)).all() and (values.sum(1) == 1).all())


def class_indices(name: str, values: np.ndarray, names: np.ndarray) -> Tensor:
    """Returns each value's index int64 [N] among sorted class names; raises UserError if absent."""
    if (values.dtype.kind == "U") != (names.dtype.kind == "U"):
        raise UserError(f"{name} are {values.dtype} and those of training {names.dtype}")
    found = np.searchsorted(names, values).clip(max=len(names) - 1)
    row = first_wrong_row(names[found] != values)
    if row is not None:
        known = ", ".join(map(str, names[:10])) + (", ..." if len(names) > 10 else "")
        raise UserError(f"{name}[{row}] is {values[row]}, which is none of the classes {known}")
    return torch.from_numpy(found.astype(np.int64))


def places_in(values: np.ndarray, order: Sequence[str]) -> Tensor | None:
    """Returns each class's place int64 [N] among names; None if one is not there.

    Args:
        values: Whole numbers, which are places, or texts.
        order: The names of the classes.
    """
    if values.dtype.kind == "U":
        place = {name: i for i, name in enumerate(order)}
        kinds, inverse = np.unique(values, return_inverse=True)
        if not all(str(kind) in place for kind in kinds):
            return None
        values = np.array([place[str(kind)] for kind in kinds], np.int64)[inverse]
    return None if values.max(initial=0) >= len(order) else torch.from_numpy(values)
