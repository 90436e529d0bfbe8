"""Description of a data module in words, printed at the start of a training."""

from collections.abc import Callable, Mapping, Sequence
from math import isclose
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaelab.data.images import Images
from vaelab.data.numbers import Numbers, listed
from vaelab.data.on_disk import OnDisk
from vaelab.data.splits import OnDemand

SHOWN = 12  # class names in the description, at most
SAMPLED = 64  # most images of a part by which a checkpoint knows its data
FEW_CHANGED = 0.1  # share of the sampled images that may be others, as after a correction
COARSE = 0.01  # standard deviations, the largest step between numbers that is not warned of
FAR = 50.0  # standard deviations from the mean, beyond which a number is warned of


def describe(data: Images) -> list[str]:
    """Returns phrases on the values and, where they are notable, on other facts.

    These are what was done to the source's images, the classes and how many training images
    they have, further columns, val and test images of their own, unused arrays, and a batch
    size above the number of training images.
    """
    splits = data.splits
    found = [data.values_text(), *splits.remarks]
    if splits.num_classes:
        names = splits.column("label").class_names
        shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
        found.append(f"{len(names)} classes: {shown}")
        found.append(class_counts_text(data))
    for name, column in splits.columns.items():
        if column.classes:
            found.append(f"{name} of {column.classes} classes")
        else:
            found.append(f"{name} from {reach_text(column.train)}")
    own = [f"{part}_images" for part in splits.parts if part != "train"]
    if splits.val_images is not None:
        found.append(f"{' and '.join(own)} of their own")
    if splits.unused:
        found.append(f"not used: {', '.join(splits.unused)}")
    if data.batch_size > len(data.rows["train"]):
        few = len(data.rows["train"])
        found.append(f"all {few} {data.noun} in a batch, for data.batch_size={data.batch_size}")
    if data.balance:
        name = "label" if data.balance is True else data.balance
        found.append(f"classes of {name} drawn equally often")
    if isinstance(splits.train_images, OnDisk):
        size = splits.train_images.nbytes / 1e9
        found.append(f"{size:.1f} GB in a file, shuffled {data.window} MB at a time")
    return found


def class_counts(data: Images) -> Tensor:
    """Number of training images of each class of the label, int64 [num_classes]."""
    labels = data.splits.train_labels[data.rows["train"]]
    return labels.bincount(minlength=data.splits.num_classes)


def class_counts_text(data: Images) -> str:
    """Returns the classes with the fewest and the most training images, and how many."""
    counts, names = class_counts(data), data.splits.column("label").class_names
    few, many = int(counts.argmin()), int(counts.argmax())
    if counts[few] == counts[many]:
        return f"{counts[few]:,} training {data.noun} of each class"
    return (
        f"training {data.noun} of a class from {counts[few]:,} ({names[few]}) "
        f"to {counts[many]:,} ({names[many]})"
    )


def rare_classes_warning(data: Images) -> str | None:
    """Returns a warning of classes with a single training image, or with none left; else None.

    A wrong label often makes such a class. Classes without any image are skipped.
    """
    if not data.splits.num_classes:
        return None
    label = data.splits.column("label")
    occurs = label.train.bincount(minlength=label.classes) > 0
    rare = [label.class_names[i] for i in torch.where(occurs & (class_counts(data) < 2))[0]]
    if not rare:
        return None
    shown = ", ".join(rare[:SHOWN]) + (", ..." if len(rare) > SHOWN else "")
    subject = "a class has" if len(rare) == 1 else f"{len(rare)} classes have"
    return f"{subject} at most one training image: {shown}; are the labels right?"


def far_numbers_warning(data: Images) -> str | None:
    """Returns a warning of columns with training numbers above `FAR` deviations; else None.

    A code for a missing number, as 999999, often is such a one. The first steps with it may spoil
    an encoder, whose scale is an exponential of what is linear in the numbers.
    """
    if not isinstance(data, Numbers) or data.pixels == "binary" or not data.standardize:
        return None
    train, units = data.splits.train_images, data.units
    assert isinstance(train, Tensor)
    rows = data.rows["train"]
    reach = [max(map(abs, column[rows].aminmax())) for column in train.unbind(1)]
    far = [f"{name} ({r:.0f})" for name, r in zip(units.names, reach, strict=True) if r > FAR]
    if not far:
        return None
    return (
        f"numbers of {listed(far)} are that many standard deviations from their mean; is one a "
        "code for a missing number? Else their logarithm, or trainer.gradient_clip_val=1, may help"
    )


def coarse_numbers_warning(data: Images) -> str | None:
    """Returns a warning of columns to condition on that single precision tells apart badly.

    Seconds since 1970 are such: numbers that vary little for how large they are. None without any.
    """
    coarse = []
    for name, column in data.splits.columns.items():
        if column.classes:
            continue
        largest, deviation = (
            float(column.train.abs().max()),
            float(column.train.double().std(0).min()),
        )
        step = float(np.spacing(np.float32(largest)))
        if step > COARSE * deviation and (deviation > 0 or step >= 1):
            coarse.append(f"{name} (by {step:g})")
    if not coarse:
        return None
    return (
        f"single precision has numbers as large as those of {listed(coarse)} in coarse steps only; "
        "subtract their least from them"
    )


def reach_text(values: Tensor) -> str:
    """Returns the least and the largest of numbers, with digits enough to tell them apart."""
    least, largest = float(values.min()), float(values.max())
    digits = next((d for d in (6, 9) if f"{least:.{d}g}" != f"{largest:.{d}g}"), 6)
    return f"{least:.{digits}g} to {largest:.{digits}g}"


def change_warning(data: Images, then: Mapping[str, Any], with_labels: bool = True) -> str | None:
    """Returns a warning that the data are not those of the training; None if they seem to be.

    Args:
        data: The data as they are now.
        then: `data_record` of the training; those of earlier versions lack some of it.
        with_labels: Whether labels and other columns of y are compared, too.
    """
    return image_warning(data, then) or (label_warning(data, then) if with_labels else None)


def image_warning(data: Images, then: Mapping[str, Any]) -> str | None:
    """Returns a warning that the images are not those of the training; None if they seem to be.

    Images are compared by the means of some of them, see `sampled_rows`. At most a level of
    a pixel, as of another decoder, or 0.05 deviations of numbers, as of another split by which they
    are standardised, is no change, nor is that of a few of them.
    """
    count, means = then.get("images"), then.get("image_means")
    tested = "what is tested may have been trained on"
    if count is not None and count != data.total:
        counts = f"were {count:,} {data.noun} when this model was trained, and are {data.total:,}"
        return f"there {counts} now, which divides them in another way; {tested}"
    if means is None:
        return None
    images = data.splits.train_images
    are_real = isinstance(images, Tensor) and images.is_floating_point()
    slack = 0.05 if are_real else 1.0
    if not differ(means, image_means(data), lambda a, b: abs(a - b) > slack):
        return None
    return f"the {data.noun} are others than in training, or in another order; {tested}"


def label_warning(data: Images, then: Mapping[str, Any]) -> str | None:
    """Returns a warning that labels, or further columns of y, are not those of the training.

    They are compared for some images, see `sampled_rows`; a few others are no change.
    """
    columns: dict[str, list[float]] = then.get("columns", {})
    changed = [
        name
        for name, values in y_columns(data).items()
        if name in columns and differ(columns[name], values, are_apart)
    ]
    if not changed:
        return None
    return f"the {data.noun} have another {listed(changed)} than in training"


def are_apart(a: float, b: float) -> bool:
    """Returns whether two numbers differ by more than a file's digits may."""
    return not isclose(a, b, rel_tol=1e-4, abs_tol=1e-6)


def differ(
    then: Sequence[float], now: Sequence[float], is_other: Callable[[float, float], bool]
) -> bool:
    """Returns whether the numbers are not as many, or more than a few of them are others."""
    changed = sum(map(is_other, then, now))
    return len(then) != len(now) or changed > FEW_CHANGED * len(now)


def data_record(data: Images) -> dict[str, Any]:
    """Returns what a checkpoint keeps of its data, to be compared by `change_warning`."""
    return {"images": data.total, "image_means": image_means(data), "columns": y_columns(data)}


def image_means(data: Images) -> list[float]:
    """Returns the means of x as stored of some images of each part."""
    parts = map(sampled_rows, data.splits.parts.values())
    return [mean for images in parts for mean in images.float().flatten(1).mean(1).tolist()]


def y_columns(data: Images) -> dict[str, list[float]]:
    """Returns classes or numbers of the same images, by column of y; leaves out known factors.

    Those depend on the images alone.
    """
    splits, (classes, numbers) = data.splits, data.y_columns
    factors = splits.factors.names if splits.factors else ()
    return {
        name: [
            value
            for part in splits.parts
            for value in sampled_rows(getattr(column, part)).double().flatten().tolist()
        ]
        for name, column in {**classes, **numbers}.items()
        if name not in factors
    }


def sampled_rows(values: Tensor | OnDemand) -> Tensor:
    """Returns up to `SAMPLED` rows of a part, evenly spaced.

    They tell other rows, or another order, from the same ones.
    """
    return values[torch.linspace(0, len(values) - 1, min(SAMPLED, len(values))).long()]
