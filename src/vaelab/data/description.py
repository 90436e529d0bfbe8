"""Description of a data module in words, printed at the start of a training."""

from collections.abc import Iterable, Mapping, Sequence
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


def change_warning(data: Images, then: Mapping[str, Any]) -> str | None:
    """Returns a warning that the images are not those of the training; None if they seem to be.

    Images are compared by the means of some of them, see `sampled_means`, and if these are the same
    their labels and other columns. At most a level of a pixel, as of another decoder, or 0.05
    deviations of numbers, as of another split by which they are standardised, is no change, nor is
    that of a few images.

    Args:
        data: The images as they are now.
        then: `data_record` of the training; of a checkpoint of earlier versions without means, or
            without columns.
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
    now = data_record(data)
    if differ(means, now["image_means"], 0.05 if are_real else 1.0):
        return f"the {data.noun} are others than in training, or in another order; {tested}"
    columns: dict[str, list[float]] = then.get("column_means", {})
    changed = [
        name
        for name, values in now["column_means"].items()
        if name in columns and differ(columns[name], values, 0.05 * float(np.std(columns[name])))
    ]
    if not changed:
        return None
    return f"the {data.noun} are those of the training, but not their {listed(changed)}"


def differ(then: Sequence[float], now: Sequence[float], slack: float) -> bool:
    """Returns whether more than a few of the numbers differ by more than `slack`."""
    changed = [abs(a - b) > slack for a, b in zip(then, now, strict=False)]
    return len(then) != len(now) or sum(changed) > FEW_CHANGED * len(now)


def data_record(data: Images) -> dict[str, Any]:
    """Returns what a checkpoint keeps of its data, to be compared by `change_warning`."""
    splits = data.splits
    columns = {name: splits.column(name) for name in splits.column_names}
    return {
        "images": data.total,
        "image_means": sampled_means(splits.parts.values()),
        "column_means": {
            name: sampled_means(getattr(column, part) for part in splits.parts)
            for name, column in columns.items()
        },
    }


def sampled_means(parts: Iterable[Tensor | OnDemand]) -> list[float]:
    """Returns the means, as stored, of up to `SAMPLED` rows of each part, evenly spaced.

    They tell other rows, or another order, from the same ones.
    """
    means: list[float] = []
    for values in parts:
        rows = torch.linspace(0, len(values) - 1, min(SAMPLED, len(values))).long()
        means += values[rows].float().reshape(len(rows), -1).mean(1).tolist()
    return means
