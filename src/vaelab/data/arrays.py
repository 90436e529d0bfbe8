"""The arrays of a data set, checked, as images, classes and numbers.

Shapes: N images of a part, which is train, val or test; C x H x W pixels; W numbers.

train_images  numbers or booleans [N, C, H, W] or [N, H, W]     train_labels  [N]

and what else is known of each image, under any other name: train_NAME, a class as whole numbers or
texts [N], or numbers as floats [N] or [N, W]. `val_` and `test_` arrays are of those parts, where
there are any. Classes are those that occur in training, by the names that they have there.
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
"""The values that are black and white."""
PARTS = ("train", "val", "test")
SMALLEST = 8  # pixels a side
DARKEST = 128  # the largest pixel that a set of images has at least if it is of 0 to 255
MANY = 1000  # classes, at most
SOME = 1000  # images to convert at a time


def splits(arrays: Arrays, num_classes: int | None = None, span: Span | None = None) -> Splits:
    """A data set from its arrays.

    Args:
        arrays: By name.
        num_classes: Of the labels, 0 up to one less; otherwise those that occur in training.
        span: What is black and white among the pixels; otherwise 0 and 255 are.

    Raises:
        UserError: If the arrays are no data set; names the array and, where it is one, the row.
    """
    if "train_images" not in arrays:
        raise UserError(
            f"has {listed(arrays)}, but should have train_images and, where there are labels, "
            "train_labels"
        )
    if not len(arrays["train_images"]):
        raise UserError("train_images is empty")
    images = {
        part: checked_images(f"{part}_images", arrays[f"{part}_images"], span)
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
    names = dict.fromkeys(n.partition("_")[2] for n in arrays if n.startswith(beginnings()))
    if "label" in names:
        raise UserError("has a column label, which is the name of what train_labels hold")
    found = {
        name: checked_column(name, complete(name, arrays, counts), counts, num_classes)
        for name in names
        if name != "images"
    }
    label = found.pop("labels", None) or unlabelled(counts)
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
        unused=tuple(name for name in arrays if not name.startswith(beginnings())),
    )


def beginnings() -> tuple[str, ...]:
    """With which the name of an array begins."""
    return tuple(f"{part}_" for part in PARTS)


def listed(arrays: Arrays) -> str:
    """The arrays that there are, in words."""
    found = [f"{name} {a.dtype} {a.shape}" for name, a in arrays.items()]
    return ", ".join(found) or "none"


def unlabelled(counts: Mapping[str, int]) -> Column:
    zeros = {part: torch.zeros(counts.get(part, 0), dtype=torch.int64) for part in PARTS}
    return Column(zeros["train"], zeros["test"], val=zeros["val"])


def complete(name: str, arrays: Arrays, counts: Mapping[str, int]) -> dict[str, np.ndarray]:
    """A column's arrays, by part.

    Raises:
        UserError: If there is none for the images of a part, or no images for one.
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


def checked_images(name: str, images: np.ndarray, span: Span | None) -> Tensor:
    """Images uint8 [N, C, H, W] from 0, black, to 255, white."""
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4:
        raise UserError(
            f"{name} have shape {images.shape}, but should be (N, H, W) or (N, C, H, W)"
        )
    if images.shape[-1] in (1, 3, 4) and images.shape[1] >= SMALLEST:
        raise UserError(f"{name} have shape {images.shape}, channels last; should be (N, C, H, W)")
    if min(images.shape[-2:]) < SMALLEST or images.shape[1] == 0:
        height, width = images.shape[-2:]
        raise UserError(
            f"{name} are too small: {height} x {width} pixels, at least {SMALLEST} x {SMALLEST} "
            "are needed"
        )
    if images.dtype == np.bool_:
        return torch.from_numpy(images.astype(np.uint8) * 255)
    if images.dtype.kind not in "uif":
        raise UserError(f"{name} are {images.dtype}, but should be numbers or booleans")
    low, high = images.min(), images.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UserError(f"{name}[{first(~np.isfinite(images))}] is not finite")
    if span is not None:
        return torch.from_numpy(stretched(name, images, span))
    if images.dtype.kind == "f" or low < 0 or high > 255 or high < DARKEST or low == high:
        raise UserError(unscaled(name, images.dtype, float(low), float(high)))
    return torch.from_numpy(np.asarray(images, np.uint8))


def unscaled(name: str, kind: np.dtype[Any], low: float, high: float) -> str:
    """What is wrong with pixels that are not of 0 to 255, and what to type."""
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
    if kind.kind == "u" and high < DARKEST:
        return (
            f"{reach}: nearly black, if 255 is white; give {asked}, or data.source.range=[0,255] "
            "if they are as dark as that"
        )
    return f"{reach}; say which values are black and white: {asked}"


def stretched(name: str, images: np.ndarray, span: Span) -> np.ndarray:
    """Images with the values of a span spread over 0 to 255."""
    black, white = map(float, span)
    outside = first((images < black) | (images > white))
    if outside is not None:
        raise UserError(
            f"{name}[{outside}] reaches from {images[outside].min():g} to "
            f"{images[outside].max():g}, and data.source.range=[{black:g},{white:g}]"
        )
    found = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), SOME):
        some = images[start : start + SOME].astype(np.float64)
        found[start : start + SOME] = np.rint((some - black) * (255 / (white - black)))
    return found


def first(wrong: np.ndarray) -> int | None:
    """The first row [N, ...] in which something is wrong."""
    rows = wrong.reshape(len(wrong), -1).any(1)
    return int(rows.argmax()) if rows.any() else None


# Columns.


def checked_column(
    name: str, values: Mapping[str, np.ndarray], counts: Mapping[str, int], num_classes: int | None
) -> Column:
    """Classes, or numbers, of the images of each part."""
    if values["train"].dtype.kind == "f" and name != "labels":
        return numbers(name, values, counts)
    return classes(name, values, counts, num_classes if name == "labels" else None)


def numbers(name: str, values: Mapping[str, np.ndarray], counts: Mapping[str, int]) -> Column:
    found = {part: checked_numbers(f"{part}_{name}", v, counts[part]) for part, v in values.items()}
    for part, others in found.items():
        if others.shape[1] != found["train"].shape[1]:
            raise UserError(
                f"{part}_{name} are {others.shape[1]} wide "
                f"and train_{name} {found['train'].shape[1]}"
            )
    return Column(found["train"], found.get("test", found["train"][:0]), val=found.get("val"))


def checked_numbers(name: str, values: np.ndarray, count: int) -> Tensor:
    """Floats [count, W]."""
    if values.ndim not in (1, 2) or len(values) != count or values.size == 0:
        raise UserError(
            f"{name} have shape {values.shape}, but should be ({count},) or ({count}, W)"
        )
    if values.dtype.kind != "f":
        raise UserError(f"{name} should be floats, as train_{name.partition('_')[2]} are")
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    row = first(~np.isfinite(single))
    if row is not None:
        wrong = values[row].reshape(-1)[~np.isfinite(single[row]).reshape(-1)][0]
        why = ", which is too large for single precision" if np.isfinite(wrong) else ""
        raise UserError(f"{name}[{row}] is {wrong:g}{why}")
    return torch.from_numpy(single.reshape(count, -1))


def classes(
    name: str, values: Mapping[str, np.ndarray], counts: Mapping[str, int], num_classes: int | None
) -> Column:
    """The classes that occur in training, or the first `num_classes` whole numbers."""
    found = {part: checked_classes(f"{part}_{name}", v, counts[part]) for part, v in values.items()}
    names = np.unique(found["train"])
    if num_classes is not None:
        names = np.arange(num_classes)
    elif len(names) > MANY or (counts["train"] >= 20 and 2 * len(names) > counts["train"]):
        raise UserError(
            f"train_{name} are of {len(names):,} classes, too many for {counts['train']:,} "
            "images; numbers are floats"
        )
    coded = {part: places(f"{part}_{name}", v, names) for part, v in found.items()}
    return Column(
        coded["train"],
        coded.get("test", coded["train"][:0]),
        len(names),
        val=coded.get("val"),
        names=tuple(map(str, names)),
    )


def checked_classes(name: str, values: np.ndarray, count: int) -> np.ndarray:
    """Whole numbers or texts [count], one for each image."""
    if values.dtype.kind in "biuf" and values.ndim == 2 and one_hot(values):
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
    row = first(~((whole >= 0) & (whole < 2**53) & (whole == np.floor(whole))))
    if row is not None:
        raise UserError(f"{name}[{row}] is {values[row]}; labels are 0, 1, ... or texts")
    return values.astype(np.int64)


def one_hot(values: np.ndarray) -> bool:
    """Whether each row [K], K > 1, has a one among zeros."""
    if values.shape[1] < 2:
        return False
    return bool(((values == 0) | (values == 1)).all() and (values.sum(1) == 1).all())


def places(name: str, values: np.ndarray, names: np.ndarray) -> Tensor:
    """The place of each value [N] among sorted names."""
    if (values.dtype.kind == "U") != (names.dtype.kind == "U"):
        raise UserError(f"{name} are {values.dtype} and those of training {names.dtype}")
    found = np.searchsorted(names, values).clip(max=len(names) - 1)
    row = first(names[found] != values)
    if row is not None:
        known = ", ".join(map(str, names[:10])) + (", ..." if len(names) > 10 else "")
        raise UserError(f"{name}[{row}] is {values[row]}, which is none of the classes {known}")
    return torch.from_numpy(found.astype(np.int64))
