"""Images and labels of PyTorch data sets, item by item: pictures, arrays or tensors."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import IterableDataset

from vaelab.data.array_files import Arrays
from vaelab.data.arrays import build_splits
from vaelab.data.image_settings import ImageSettings, check_brightness
from vaelab.data.prepared import ABOUT, About, ImageSpool
from vaelab.data.splits import Splits
from vaelab.errors import UserError, first_line
from vaelab.files.image_decoding import UnfitImageError, convert_image, is_grey
from vaelab.training.progress_bar import track

KEYS = {
    "image": ("image", "images", "img", "x", "pixel_values"),
    "label": ("label", "labels", "target", "y"),
}
"""Names of the image and of its label, in items that are mappings."""


class ItemReader:
    """Reads the items of data sets as images of one shape, and labels.

    Args:
        what: What the data set is called in messages.
        settings: How pictures are made alike.
        hint: What to do about images of several sizes, for messages.
        colour_hint: What to do about colour in some of them.
        pictures_only: Whether arrays and tensors are refused, of which no setting would apply.

    Attributes:
        done: How often what was done to images, by the keys of `image_settings.DONE`.
        shapes: Height and width of the pictures, as they were.
        brightest: The highest pixel of the pictures.
        highest: The same before it was scaled to bytes.
        count: The number of images.
    """

    def __init__(
        self,
        what: str,
        settings: ImageSettings,
        hint: str,
        colour_hint: str,
        pictures_only: bool = True,
    ) -> None:
        self.what, self.settings, self.hint, self.colour_hint = what, settings, hint, colour_hint
        self.pictures_only = pictures_only
        self.channels: int | None = settings.channels
        self.shape: tuple[int, ...] = ()
        self.done: Counter[str] = Counter()
        self.shapes: set[tuple[int, int]] = set()
        self.brightest, self.highest, self.count = 0, 0.0, 0

    def read(
        self, dataset: Any, part: str, take: Callable[[np.ndarray], object]
    ) -> np.ndarray | None:
        """Passes each image to `take`; returns the labels [N] or [N, K], None if there are none.

        Args:
            dataset: Items that are images or pairs (image, label), by index or one by one.
            part: The part that it is, for the progress bar.
            take: Called with each image: of a picture bytes [C, H, W], else as it is.

        Raises:
            UserError: If an item cannot be read or is no image, or images differ in shape.
        """
        indexed = all(hasattr(dataset, name) for name in ("__len__", "__getitem__"))
        if not indexed and not isinstance(dataset, IterableDataset):
            raise UserError(f"{self.what}: is no data set, for it has no length and no items")
        labels: list[np.ndarray] = []
        total = None if isinstance(dataset, IterableDataset) else len(dataset)
        for item in track(iterate(dataset, self.what), f"{self.what} {part}", total):
            image, label = split_item(item)
            take(self.convert(image))
            self.count += 1
            if label is not None:
                labels.append(np.asarray(label))
        if total is not None and labels and len(labels) < total:
            raise UserError(f"{self.what}: {len(labels):,} of {total:,} items have a label")
        if len({label.shape for label in labels}) > 1:
            raise UserError(f"{self.what}: the labels have several shapes")
        return np.stack(labels) if labels else None

    def convert(self, image: Any) -> np.ndarray:
        """Returns an image as an array of the shape of those before; UserError if it is none."""
        if isinstance(image, Image.Image):
            found = self.convert_picture(image)
        elif not self.pictures_only and isinstance(image, (np.ndarray, torch.Tensor)):
            found = image.detach().cpu().numpy() if isinstance(image, torch.Tensor) else image
        else:
            wanted = "picture" if self.pictures_only else "picture, array or tensor"
            raise UserError(
                f"{self.what}: item {self.count} has a {type(image).__name__}, where a {wanted} "
                "should be; items are images or (image, label)"
            )
        if self.count and found.shape != self.shape:
            raise UserError(
                f"{self.what}: images of several sizes, {self.shape} and, item {self.count}, "
                f"{found.shape}; {self.hint}"
            )
        self.shape = found.shape
        return found

    def convert_picture(self, picture: Image.Image) -> np.ndarray:
        """Returns a picture as bytes [C, H, W], and counts what was done to it."""
        grey = is_grey(picture)
        if self.channels is None:
            self.channels = 1 if grey else 3
        elif self.channels == 1 and self.settings.channels is None and not grey:
            raise UserError(
                f"{self.what}: item {self.count} has colour, and those before are grey; "
                + self.colour_hint
            )
        self.shapes.add((picture.height, picture.width))
        try:
            found = convert_image(picture, self.settings.conversion(self.channels))
        except UnfitImageError as error:
            raise UserError(f"{self.what}: item {self.count} {error}") from error
        self.done.update(found.done)
        self.brightest = max(self.brightest, int(found.pixels.max()))
        self.highest = max(self.highest, found.highest)
        return found.pixels

    @property
    def remarks(self) -> list[str]:
        """Phrases on what was done to the pictures."""
        return self.settings.remarks(self.done, self.count, self.shapes)


def iterate(dataset: Any, what: str) -> Iterator[Any]:
    """Yields the items of a data set, by index where it has a length; UserError if one fails."""
    indexed = not isinstance(dataset, IterableDataset)
    items = (dataset[i] for i in range(len(dataset))) if indexed else iter(dataset)
    count = 0
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except Exception as error:  # whatever a data set raises
            name = type(error).__name__
            raise UserError(
                f"{what}: item {count} cannot be read ({name}: {first_line(error)})"
            ) from error
        yield item
        count += 1


def split_item(item: Any) -> tuple[Any, Any]:
    """Returns image and label of an item; the label is None without one."""
    if isinstance(item, Mapping):
        image, label = (
            next((item[key] for key in keys if key in item), None) for keys in KEYS.values()
        )
        return image, label
    if isinstance(item, (tuple, list)):
        return item[0] if item else None, item[1] if len(item) > 1 else None
    return item, None


class DatasetItems:
    """Source of a PyTorch data set, all for training, read into memory at each start.

    Args:
        dataset: Items that are images or pairs (image, label).

    Attributes:
        settings: How pictures are made alike.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.name = type(dataset).__name__
        self.note = f"items of {self.name}"
        self.settings = ImageSettings()

    def __call__(self) -> Splits:
        """Returns the data set; reads every item, and restores torch's random state.

        Raises:
            UserError: If an item cannot be read, images are unfit, or items change from one reading
                to the next, since then a run could not be resumed.
        """
        hint = "give it a transform that makes them alike"
        colour_hint = "its transform should make them alike, by picture.convert('RGB')"
        reader = ItemReader(self.name, self.settings, hint, colour_hint, pictures_only=False)
        images: list[np.ndarray] = []
        with torch.random.fork_rng(devices=[]):
            labels = reader.read(self.dataset, "items", images.append)
            if not images:
                raise UserError(f"{self.name}: there are no items")
            self.check_repeatable(reader, images[0])
        arrays: Arrays = {"train_images": np.stack(images)}
        if labels is not None:
            arrays["train_labels"] = labels
        try:
            splits = build_splits(arrays)
        except UserError as error:
            told = str(error).replace("data.source.range=", "")  # a setting that it has not
            hint = "; its transform should scale images to [0, 1]" if told != str(error) else ""
            raise UserError(f"{self.name}: {told}{hint}") from error
        classes = class_names(self.dataset)
        named = [int(n) for n in splits.class_names if n.isdecimal()]
        if len(named) == splits.num_classes > 0 and len(classes) > max(named):
            splits = replace(splits, class_names=tuple(classes[i] for i in named))
        return replace(splits, remarks=(*reader.remarks, *splits.remarks))

    def check_repeatable(self, reader: ItemReader, first: np.ndarray) -> None:
        """Raises UserError if the first item is another image now; skips data sets of no index."""
        if isinstance(self.dataset, IterableDataset):
            return
        image, _ = split_item(self.dataset[0])
        if not np.array_equal(copy(reader).convert(image), first):
            raise UserError(
                f"{self.name}: item 0 is another image at each reading; leave out transforms that "
                "are random, for the items are read once"
            )


def class_names(dataset: Any) -> tuple[str, ...]:
    """Returns the names of the classes that a data set tells, as torchvision's do, or none."""
    found = getattr(dataset, "classes", None)
    if isinstance(found, (list, tuple)) and all(isinstance(name, str) for name in found):
        return tuple(found)
    return ()


class PreparedItems:
    """Reads pictures of data sets to the arrays of a prepared file.

    Args:
        what: What the data set is called in messages.
        prepared: The prepared file.
        settings: How pictures are made alike.
    """

    def __init__(self, what: str, prepared: Path, settings: ImageSettings) -> None:
        self.what, self.prepared, self.settings = what, prepared, settings

    def make_arrays(
        self,
        parts: Iterable[tuple[str, Any]],
        classes: tuple[str, ...] = (),
        columns: tuple[str, ...] = (),
        remarks: Iterable[str] = (),
        made_of: str = "",
    ) -> Arrays:
        """Returns the images and labels of all parts, and what they say of themselves.

        Args:
            parts: The parts by name, in the order train, val, test; opened one after the other.
            classes: Names of the classes; default: those of the first part, see `class_names`.
            columns: Names of the K numbers of each label; default: those of the first part, which
                CelebA calls `attr_names`.
            remarks: Further phrases on what was done.
            made_of: Digest of the source, see `load_prepared`.

        Raises:
            UserError: If an item is no picture, or they do not fit together.
        """
        hint = "data.source.size=64 makes all of them alike, and data.source.fit=crop unstretched"
        colour_hint = (
            "data.source.channels=3 makes all of them colour, or data.source.channels=1 grey"
        )
        reader = ItemReader(self.what, self.settings, hint, colour_hint)
        sizes: dict[str, int] = {}
        labels: dict[str, np.ndarray] = {}
        with ImageSpool(self.prepared) as spool:
            for part, dataset in parts:
                before = reader.count
                found = reader.read(dataset, part, spool.append)
                sizes[part] = reader.count - before
                if found is not None and not (found.dtype.kind in "if" and (found == -1).all()):
                    labels[part] = found  # -1: not known, as of STL10's unlabeled images
                classes = classes or class_names(dataset)
                columns = columns or tuple(getattr(dataset, "attr_names", ()))
            images = spool.parts(sizes)
        if not reader.count:
            raise UserError(f"{self.what}: there are no images")
        check_brightness(self.what, self.settings.span, reader.brightest, reader.highest)
        said = []
        for part in sorted(sizes.keys() - labels.keys() if "train" in labels else ()):
            del images[f"{part}_images"]
            said.append(f"its {part} images, whose labels are not known, are not used")
        if labels and "train" not in labels:
            said.append(f"labels of {' and '.join(labels)} alone are not used")
            labels = {}
        named, classes = name_classes(labels, classes, columns)
        about = About(made_of, classes, (*reader.remarks, *remarks, *said))
        return images | named | {ABOUT: about.to_array()}


def name_classes(
    labels: Mapping[str, np.ndarray], classes: tuple[str, ...], columns: tuple[str, ...]
) -> tuple[Arrays, tuple[str, ...]]:
    """Returns the arrays of labels by part, as labels or columns, and the names of the classes.

    Texts become the numbers of their sorted classes. Names that do not fit the labels are not used.
    """
    if not labels:
        return {}, ()
    every = np.concatenate([*labels.values()])
    if every.dtype.kind in "SU":
        names = np.unique(every)
        coded = {f"{p}_labels": np.searchsorted(names, some) for p, some in labels.items()}
        return coded, tuple(map(str, names))
    if every.ndim == 2 and every.shape[1] <= len(columns):
        return {
            f"{part}_{columns[k]}": np.ascontiguousarray(some[:, k])
            for part, some in labels.items()
            for k in range(some.shape[1])
        }, ()
    fits = every.ndim == 1 and every.dtype.kind in "biu" and every.min() >= 0
    if not fits or every.max() >= len(classes):
        classes = ()
    return {f"{part}_labels": some for part, some in labels.items()}, classes
