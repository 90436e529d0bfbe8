"""Validation and conversion of a data set's numpy arrays to images, classes and numbers.

Shapes: N images of a part, which is train, val or test; C x H x W pixels; W numbers.

The arrays, by name:

train_images  numbers or booleans [N, C, H, W] or [N, H, W]     train_labels  [N]

and further columns under any other name: train_NAME, classes as whole numbers or texts [N], or
numbers as floats [N] or [N, W]. Arrays `val_NAME` and `test_NAME` are optional. The classes of a
column are those that occur in its training array.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaelab.data.columns import Column
from vaelab.data.splits import Splits
from vaelab.errors import UserError

Arrays = Mapping[str, np.ndarray]
Span = Sequence[float]
"""The two pixel values that mean black and white."""
PARTS = ("train", "val", "test")
MIN_SIDE = 8  # pixels
MIN_MAXIMUM = 128  # if no pixel reaches it, the range is probably not 0 to 255
MAX_CLASSES = 1000
IMAGES_PER_CHUNK = 1000  # images rescaled at a time, to bound memory


def build_splits(
    arrays: Arrays, num_classes: int | None = None, span: Span | None = None
) -> Splits:
    """Converts arrays to a data set after checks; raises UserError if one does not fit.

    Arrays whose names begin with none of train_, val_ and test_ are only listed in `unused`.

    Args:
        arrays: The arrays by name, see above.
        num_classes: The labels are 0 to num_classes - 1; default: the labels in training.
        span: The pixel values that mean black and white; default: 0 and 255.

    Raises:
        UserError: If the arrays are no data set. The message names the array, and the row if a
            single row is wrong.
    """
    if "train_images" not in arrays:
        raise UserError(
            f"has {arrays_text(arrays)}, but should have train_images and, where there are labels, "
            "train_labels"
        )
    if not len(arrays["train_images"]):
        raise UserError("train_images is empty")
    images = {
        part: convert_images(f"{part}_images", arrays[f"{part}_images"], span)
        for part in PARTS
        if len(arrays.get(f"{part}_images", ()))
    }
    train = images["train"]
    for part, others in images.items():
        if others.shape[1:] != train.shape[1:]:
            raise UserError(
                f"{part}_images are {tuple(others.shape[1:])} "
                f"and train_images {tuple(train.shape[1:])}"
            )
    counts = {part: len(tensor) for part, tensor in images.items()}
    names = dict.fromkeys(n.partition("_")[2] for n in arrays if n.startswith(part_prefixes()))
    if "label" in names:
        raise UserError("has a column label, which is the name of what train_labels hold")
    found = {
        name: build_column(name, column_arrays(name, arrays, counts), counts, num_classes)
        for name in names
        if name != "images"
    }
    label = found.pop("labels", None) or zero_labels(counts)
    return Splits(
        train_images=train,
        train_labels=label.train,
        val_images=images.get("val"),
        val_labels=label.val,
        test_images=images.get("test", train[:0]),
        test_labels=label.test,
        num_classes=label.classes,
        class_names=label.names,
        columns=found,
        unused=tuple(name for name in arrays if not name.startswith(part_prefixes())),
    )


def part_prefixes() -> tuple[str, ...]:
    """Returns the prefixes of array names: train_, val_ and test_."""
    return tuple(f"{part}_" for part in PARTS)


def arrays_text(arrays: Arrays) -> str:
    """Returns name, dtype and shape of all arrays as one line of text, or `none`."""
    found = [f"{name} {a.dtype} {a.shape}" for name, a in arrays.items()]
    return ", ".join(found) or "none"


def zero_labels(counts: Mapping[str, int]) -> Column:
    """Returns labels of an unlabelled data set: zeros int64 [N] for each part, and no classes."""
    zeros = {part: torch.zeros(counts.get(part, 0), dtype=torch.int64) for part in PARTS}
    return Column(zeros["train"], zeros["test"], val=zeros["val"])


def column_arrays(name: str, arrays: Arrays, counts: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Returns a column's arrays of the parts with images; raises UserError if the parts differ.

    Empty arrays of a part without images are left out.

    Args:
        name: Name of the column, without the prefix of a part.
        arrays: All arrays of the data set.
        counts: Number of images by part.
    """
    given = {part: arrays[f"{part}_{name}"] for part in PARTS if f"{part}_{name}" in arrays}
    for part, values in given.items():
        if part not in counts and len(values):
            raise UserError(f"has {part}_{name} but no {part}_images")
    for part in counts:
        if part not in given:
            raise UserError(
                f"has {next(iter(given))}_{name} and {part}_images but no {part}_{name}"
            )
    return {part: given[part] for part in counts}


# Pixels.


def convert_images(name: str, images: np.ndarray, span: Span | None) -> Tensor:
    """Returns images as uint8 [N, C, H, W], 0 black to 255 white; raises UserError if unfit.

    Rescales by `span` if given; otherwise accepts only booleans and whole numbers of 0 to 255,
    and does not copy uint8 images.
    """
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4:
        raise UserError(
            f"{name} have shape {images.shape}, but should be (N, H, W) or (N, C, H, W)"
        )
    if images.shape[-1] in (1, 3, 4) and images.shape[1] >= MIN_SIDE:
        raise UserError(f"{name} have shape {images.shape}, channels last; should be (N, C, H, W)")
    if min(images.shape[-2:]) < MIN_SIDE or images.shape[1] == 0:
        height, width = images.shape[-2:]
        raise UserError(
            f"{name} are too small: {height} x {width} pixels, at least {MIN_SIDE} x {MIN_SIDE} "
            "are needed"
        )
    if images.dtype == np.bool_:
        return torch.from_numpy(images.astype(np.uint8) * 255)
    if images.dtype.kind not in "uif":
        raise UserError(f"{name} are {images.dtype}, but should be numbers or booleans")
    low, high = images.min(), images.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UserError(f"{name}[{first_wrong_row(~np.isfinite(images))}] is not finite")
    if span is not None:
        return torch.from_numpy(rescale(name, images, span))
    if images.dtype.kind == "f" or low < 0 or high > 255 or high < MIN_MAXIMUM or low == high:
        raise UserError(range_error_text(name, images.dtype, float(low), float(high)))
    return torch.from_numpy(np.asarray(images, np.uint8))


def range_error_text(name: str, kind: np.dtype[Any], low: float, high: float) -> str:
    """Returns the error message for images of a doubtful pixel range, with the setting to give."""
    reach = f"{name} are {kind} from {low:g} to {high:g}"
    if low == high:
        return f"{name} are all {low:g}; data.source.range=[0,255] takes them as they are"
    if kind.kind == "f":
        black, white = (0, 1) if low >= 0 else (-1, 1)
        if low < black or high > white:
            black, white = (0, 255) if low >= 0 and high <= 255 else (low, high)  # type: ignore[assignment]
    else:
        black, white = (
            min(0, int(low)),
            int(high) if high < 256 else 2 ** int(high).bit_length() - 1,
        )
    asked = f"data.source.range=[{black:g},{white:g}]"
    if kind.kind == "u" and high < MIN_MAXIMUM:
        return (
            f"{reach}: nearly black, if 255 is white; give {asked}, or data.source.range=[0,255] "
            "if they are as dark as that"
        )
    return f"{reach}; say which values are black and white: {asked}"


def rescale(name: str, images: np.ndarray, span: Span) -> np.ndarray:
    """Returns uint8 images scaled from `span` to 0..255; raises UserError for pixels outside."""
    black, white = map(float, span)
    outside = first_wrong_row((images < black) | (images > white))
    if outside is not None:
        raise UserError(
            f"{name}[{outside}] reaches from {images[outside].min():g} to "
            f"{images[outside].max():g}, and data.source.range=[{black:g},{white:g}]"
        )
    found = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), IMAGES_PER_CHUNK):
        chunk = slice(start, start + IMAGES_PER_CHUNK)
        some = images[chunk].astype(np.float64)
        found[chunk] = np.rint((some - black) * (255 / (white - black)))
    return found


def first_wrong_row(wrong: np.ndarray) -> int | None:
    """Returns the index of the first row of booleans [N, ...] with a True; None without one."""
    rows = wrong.reshape(len(wrong), -1).any(1)
    return int(rows.argmax()) if rows.any() else None


# Columns.


def build_column(
    name: str, values: Mapping[str, np.ndarray], counts: Mapping[str, int], num_classes: int | None
) -> Column:
    """Returns a column of numbers if train is floats, except for labels, else one of classes.

    Labels are classes even if they are floats. Raises UserError if a part is unfit; `num_classes`
    is for labels only.
    """
    if values["train"].dtype.kind == "f" and name != "labels":
        return build_number_column(name, values, counts)
    return build_class_column(name, values, counts, num_classes if name == "labels" else None)


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
    name: str, values: Mapping[str, np.ndarray], counts: Mapping[str, int], num_classes: int | None
) -> Column:
    """Returns a column of class indices; raises UserError for unknown or too many classes.

    Known are the classes that occur in training. With `num_classes` the classes are the whole
    numbers below it, whether they occur in training or not.
    """
    found = {part: convert_classes(f"{part}_{name}", v, counts[part]) for part, v in values.items()}
    names = np.unique(found["train"])
    if num_classes is not None:
        names = np.arange(num_classes)
    elif len(names) > MAX_CLASSES or (counts["train"] >= 20 and 2 * len(names) > counts["train"]):
        raise UserError(
            f"train_{name} are of {len(names):,} classes, too many for {counts['train']:,} "
            "images; numbers are floats"
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
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    if values.dtype.kind == "U":
        return values
    if values.dtype.kind not in "biuf":
        raise UserError(f"{name} are {values.dtype}, but should be whole numbers or texts")
    whole = values.astype(np.float64)
    row = first_wrong_row(~((whole >= 0) & (whole < 2**53) & (whole == np.floor(whole))))
    if row is not None:
        raise UserError(f"{name}[{row}] is {values[row]}; labels are 0, 1, ... or texts")
    return values.astype(np.int64)


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
