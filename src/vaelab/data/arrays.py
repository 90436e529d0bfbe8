"""Validation and conversion of a data set's numpy arrays to images, classes and numbers.

Shapes: N images of a part, which is train, val or test; C x H x W pixels; W numbers.

The arrays, by name:

train_images  numbers or booleans [N, C, H, W], [N, H, W, C] or [N, H, W]    train_labels  [N]

and further columns under any other name: train_NAME, classes as whole numbers or texts [N], or
numbers as floats [N] or [N, W]. Arrays `val_NAME` and `test_NAME` are optional. Images and labels
may have other usual names, see `usual_names`. The classes of a column are those that occur in its
training array, in alphabetical order; or those of the array `class_names`, texts [K] in the order
of the labels, and of `class_names_NAME` for a column NAME.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
import torch

from vaelab.data.array_columns import build_column
from vaelab.data.array_images import Layout, Span, convert_images, find_layout, find_span
from vaelab.data.columns import Column
from vaelab.data.splits import Splits
from vaelab.errors import UserError
from vaelab.observations import PixelScale

Arrays = Mapping[str, np.ndarray]
UNGIVEN = np.empty(0)
"""Stands for the images of a part that there is not."""
CLASS_NAMES = "class_names"
"""The array of the names of the labels' classes, and the beginning of those of other columns."""
PARTS = ("train", "val", "test")
PART_WORDS = {part: part for part in PARTS} | {"valid": "val", "validation": "val"}
KIND_WORDS = {
    **dict.fromkeys(("images", "image", "imgs", "x", "data"), "images"),
    **dict.fromkeys(("labels", "label", "y", "targets", "target"), "labels"),
}
"""What an array has by a word of its name, in small letters."""


def build_splits(
    arrays: Arrays,
    num_classes: int | None = None,
    span: Span | None = None,
    layout: Layout | None = None,
) -> Splits:
    """Converts arrays to a data set after checks; raises UserError if one does not fit.

    Arrays whose names begin with none of train_, val_ and test_ are only listed in `unused`, except
    for the names of classes.

    Args:
        arrays: The arrays by name, see above.
        num_classes: The labels are 0 to num_classes - 1; default: the labels in training.
        span: The pixel values that mean black and white; default: 0 and 255, or those of floats
            that leave no doubt, see `find_span`.
        layout: Order of the axes of images; default: as their shape says, see `find_layout`.

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
    first, remarks = arrays["train_images"], []
    if layout is None:
        layout, said = find_layout("train_images", first.shape)
        remarks += said
    is_float = first.dtype.kind == "f"
    if span is None:
        span, said = find_span(first)
        remarks += said
    given = {part: arrays.get(f"{part}_images", UNGIVEN) for part in PARTS}
    images = {
        part: convert_images(f"{part}_images", some, span, layout, given.values())
        for part, some in given.items()
        if len(some)
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
    orders = {name: class_order(arrays, name) for name in names}
    found = {
        name: build_column(
            name, column_arrays(name, arrays, counts), counts, num_classes, orders[name]
        )
        for name in names
        if name != "images"
    }
    ordered = [name for name in found if orders[name] and found[name].names == orders[name]]
    used = {order_name(name) for name in ordered}
    label = found.pop("labels", None) or zero_labels(counts)
    return Splits(
        train_images=train,
        train_labels=label.train,
        val_images=images.get("val"),
        val_labels=label.val,
        test_images=images.get("test", torch.empty(0, *train.shape[1:], dtype=torch.uint8)),
        test_labels=label.test,
        num_classes=label.classes,
        class_names=label.names,
        columns=found,
        unused=tuple(n for n in arrays if not n.startswith(part_prefixes()) and n not in used),
        remarks=tuple(remarks),
        pixel_scale=PixelScale.of_data(None if first.dtype == np.bool_ else span, is_float),
    )


def usual_names(names: Iterable[str]) -> dict[str, str]:
    """Returns by the names of a file's arrays those by which they are read: mostly the same.

    Where there is no train_images, x_train, train_x, images or X are train_images, and y_train,
    labels or y are train_labels; the same for the other parts. So is a single array
    that was saved without a name. Two arrays that would get one name keep theirs.
    """
    given = list(names)
    if "train_images" in given:
        return {name: name for name in given}
    if given == ["arr_0"]:  # numpy's name of a single array without one
        return {"arr_0": "train_images"}
    usual = {name: usual_name(name) for name in given}
    count = Counter(usual.values())
    return {name: new if count[new] == 1 else name for name, new in usual.items()}


def usual_name(name: str) -> str:
    """Returns the name by which an array is read that has one of the usual names, or that name."""
    words = name.lower().split("_")
    parts = [PART_WORDS[word] for word in words if word in PART_WORDS]
    kinds = [KIND_WORDS.get(word) for word in words if word not in PART_WORDS]
    if len(parts) > 1 or len(kinds) != 1 or not kinds[0]:
        return name
    return f"{parts[0] if parts else 'train'}_{kinds[0]}"


def order_name(name: str) -> str:
    """Returns the name of the array with the names of a column's classes; `labels` is the label."""
    return CLASS_NAMES if name == "labels" else f"{CLASS_NAMES}_{name}"


def class_order(arrays: Arrays, name: str) -> tuple[str, ...]:
    """Returns the names of a column's classes in their order; none if they are not given.

    An array that has no texts, or one of them twice, is not taken.
    """
    given = arrays.get(order_name(name), UNGIVEN)
    order = tuple(map(str, given)) if given.ndim == 1 and given.dtype.kind == "U" else ()
    return order if len(set(order)) == len(order) else ()


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
