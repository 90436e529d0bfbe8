"""Lightning data module of images: splits, columns of y, and batches."""

from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import Annotated, Any, Literal

import torch
from lightning import LightningDataModule
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor
from torch.utils.data import Dataset

from vaelab.data.augmentation import flip_and_shift
from vaelab.data.batches import Augment, Batches
from vaelab.data.columns import Column, Labels, Names, name_list
from vaelab.data.items import DatasetItems
from vaelab.data.on_disk import LARGE, OnDisk
from vaelab.data.pixels import ImagePixels, Pixels, binarize, to_float
from vaelab.data.splits import OnDemand, Splits
from vaelab.errors import UserError, spelling_hint
from vaelab.observations import kind_text
from vaelab.randomness import seeded_generator

TOGETHER = 2**25  # bytes of validation or test images that are read together from a large file
Share = Annotated[float, Field(gt=0, lt=1)]


class Images(LightningDataModule):
    """Lightning data module of images, loaded on first use; holds out missing parts.

    Its batches are on the model's device. If the source has no validation or test part, these
    images are held out of the training part by `split_seed`, which also seeds the noise of their
    pixels. Binary pixels are the same bits in every run of every sweep; dequantized pixels depend
    on the batch size too.

    Args:
        source: Returns the `Splits`; called once, on first use. Or a PyTorch data set of images, or
            of pairs (image, label).
        batch_size: Images in a batch: in training over all devices, which share it; in evaluation
            on one device, as devices take whole batches in turn.
        val_size: Number of training images held out for validation, or, below one, their
            fraction; ignored if the source has a validation part.
        test_size: The same for the test.
        pixels: How x is made of stored pixels, see `vaelab.data.pixels`.
        columns: Names of the columns in y: classes first, one-hot, then numbers. Default: the
            label if there is one; with `numbers`, all columns of numbers.
        numbers: Whether to encode ordinal classes, such as angles, as numbers instead of one-hot.
        seed: Seed of order and noise in training.
        split_seed: Seed of the split, and of validation and test noise.
        balance: Whether training draws the classes of the label equally often, at an unchanged
            number of images in an epoch; or the name of another column of classes.
        flip: Whether training images are mirrored, left to right, with probability 1/2.
        shift: Pixels that training images are moved by at most, each way, with repeated edges.
        in_memory: What is held of training images that a large file has (`vaelab.data.on_disk`):
            all, or the windows that are read and read ahead. `auto` is all on a GPU of which they
            fill at most half of what is free. Other images are all held. Batches are the same.
        window: Megabytes of training images in a large file that are shuffled together.

    Raises:
        UserError: On first use, if the sizes do not fit the images, or there is no such column.
    """

    def __init__(
        self,
        *,
        source: Callable[[], Splits] | Dataset[Any],
        batch_size: PositiveInt,
        val_size: PositiveInt | Share,
        pixels: ImagePixels,
        test_size: NonNegativeInt | Share = 0,
        columns: Names | None = None,
        numbers: bool = False,
        seed: NonNegativeInt = 0,
        split_seed: NonNegativeInt = 0,
        balance: bool | str = False,
        flip: bool = False,
        shift: NonNegativeInt = 0,
        in_memory: Literal["auto", "all", "window"] = "auto",
        window: PositiveInt = 256,
    ) -> None:
        super().__init__()
        self.source = source if callable(source) else DatasetItems(source)
        self.batch_size = batch_size
        self.val_size = val_size
        self.test_size = test_size
        self.pixels: Pixels = pixels
        self.columns = None if columns is None else name_list(columns)
        self.numbers = numbers
        self.seed = seed
        self.split_seed = split_seed
        self.balance = balance
        self.flip, self.shift = flip, shift
        self.in_memory = in_memory
        self.window = window
        self.device = "cpu"

    @cached_property
    def splits(self) -> Splits:
        """The data set of the source, loaded on first use, which may download or convert it."""
        return self.source()

    @property
    def noun(self) -> str:
        """What x are called in messages: images, signals or vectors."""
        return kind_text(self.splits.train_images.shape[1:])

    @property
    def shapes(self) -> dict[str, Any]:
        """What a model is built with: x_shape, columns of y, pixels; loads the data on first use.

        `classes` has the number of classes of each one-hot column, `class_names` their names, and
        `numbers` the width of each column of numbers, in the order of y. There is `pixel_scale`
        only if it is not the default.
        """
        classes, numbers = self.y_columns
        scale = self.splits.pixel_scale
        return ({} if scale.is_default else {"pixel_scale": scale.plain}) | {
            "x_shape": tuple(self.splits.train_images.shape[1:]),
            "classes": {name: column.classes for name, column in classes.items()},
            "numbers": {name: column.width for name, column in numbers.items()},
            "class_names": {name: [*column.class_names] for name, column in classes.items()},
            "pixels": self.pixels,
        }

    @cached_property
    def y_columns(self) -> tuple[dict[str, Column], dict[str, Column]]:
        """The columns of y, (classes, numbers), by name; loads the data on first use.

        Raises:
            UserError: If a chosen name is no column, or is chosen twice.
        """
        splits, names, known = self.splits, self.columns, self.splits.column_names
        if names is None:
            names = known if self.numbers else known[: splits.num_classes > 0]
        for name in names:
            if name not in known:
                held = spelling_hint(name, known) if known else "they have none"
                raise UserError(f"data.columns: {name} is no column of these {self.noun}; {held}")
        if len(set(names)) < len(names):
            raise UserError(f"data.columns=[{','.join(names)}]: one of them is there twice")
        columns = {name: splits.column(name) for name in names}
        numbers = {n: c for n, c in columns.items() if c.width and (self.numbers or not c.classes)}
        if self.columns is None and self.numbers:
            return {}, numbers
        return {n: c for n, c in columns.items() if n not in numbers}, numbers

    @cached_property
    def rows(self) -> dict[str, Tensor]:
        """Shuffled indices of the source's training images by part; loads the data on first use."""
        return self.split_rows(self.splits)

    def split_rows(self, splits: Splits) -> dict[str, Tensor]:
        """Returns indices of the training images by part, shuffled by `split_seed`.

        They are empty for a part that the source has of its own.

        Raises:
            UserError: If the held out sizes leave no training images.
        """
        count = len(splits.train_images)
        val_size, test_size = (
            0 if part in splits.parts else num_held_out(size, count)
            for part, size in (("val", self.val_size), ("test", self.test_size))
        )
        held_out = val_size + test_size
        if held_out >= count:
            raise UserError(
                f"data.val_size={self.val_size} and data.test_size={self.test_size} leave nothing "
                f"of the {count:,} {kind_text(splits.train_images.shape[1:])} for training"
            )
        shuffled = torch.randperm(count, generator=seeded_generator("split", self.split_seed))
        sizes = [count - held_out, val_size, test_size]
        return dict(zip(("train", "val", "test"), shuffled.split(sizes), strict=True))

    @property
    def sizes(self) -> dict[str, int]:
        """The number of images of each part; raises UserError if there are no test images."""
        own = {part: len(images) for part, images in self.splits.parts.items() if part != "train"}
        sizes = {name: len(part) for name, part in self.rows.items()} | own
        if not sizes["test"]:
            raise UserError(
                f"data.test_size=0, but these {self.noun} have no test part of their own"
            )
        return sizes

    @property
    def total(self) -> int:
        """The number of images of all parts together."""
        return sum(map(len, self.splits.parts.values()))

    def check_batch_size(self, world_size: int) -> None:
        """Raises UserError if devices do not divide the batch size or outnumber training images."""
        if self.batch_size % world_size:
            raise UserError(
                f"data.batch_size={self.batch_size} cannot be divided over {world_size} devices"
            )
        if len(self.rows["train"]) < world_size:
            few = len(self.rows["train"])
            raise UserError(f"{few} training {self.noun} are too few for {world_size} devices")

    def check_training_draw(self) -> None:
        """Raises UserError if the images do not fit balance, flip, shift or in_memory."""
        self.find_balanced_column()
        images = self.splits.train_images
        if (self.flip or self.shift) and len(images.shape) != 4:
            raise UserError("data.flip and data.shift are for images; leave them out")
        self.check_columns_unchanged()
        if self.shift and self.shift >= min(images.shape[-2:]):
            height, width = images.shape[-2:]
            raise UserError(f"data.shift={self.shift}: the images have {height} x {width} pixels")
        if self.in_memory == "window" and isinstance(images, Tensor) and images.nbytes > LARGE:
            raise UserError(
                "data.in_memory=window: these images are read whole; only 0 to 255 as uint8 "
                "(N, H, W) or (N, C, H, W) in an .npy or .safetensors are read as training goes"
            )

    def check_columns_unchanged(self) -> None:
        """Raises UserError if flip or shift would change what a condition is told of an image.

        What they change is known of the factors of a source; nothing is known of other columns.
        """
        if not self.splits.factors:
            return
        told = [*self.y_columns[0], *self.y_columns[1]]
        for name, value in (("flip", self.flip), ("shift", self.shift)):
            changed = [c for c in told if value and c in self.splits.factors.changed_by[name]]
            if changed:
                raise UserError(
                    f"data.{name}={str(value).lower()}: changes {' and '.join(changed)} of images, "
                    "which a condition is told; leave it out, or name other data.columns"
                )

    def find_balanced_column(self) -> Column | None:
        """Returns the column whose classes training draws equally often; None without `balance`.

        Raises:
            UserError: If there is no such column of classes.
        """
        if not self.balance:
            return None
        name = "label" if self.balance is True else self.balance
        asked = "true" if self.balance is True else name
        known = [n for n in self.splits.column_names if self.splits.column(n).classes]
        if name not in known:
            others = f"; data.balance=NAME takes {' or '.join(known)}" if known else ""
            what = "have no labels" if name == "label" else "have no such column of classes"
            raise UserError(f"data.balance={asked}: these {self.noun} {what}{others}")
        return self.splits.column(name)

    def values_text(self) -> str:
        """Returns a phrase on the range of the pixels, and of what they were in the file."""
        low, high = self.splits.pixel_range
        span = getattr(self.source, "span", None)
        stored = f", which were {span[0]:g} to {span[1]:g}" if span else ""
        return f"pixels from {low} to {high}{stored}"

    def setup(self, stage: str) -> None:
        """Called by Lightning before each stage, such as fit: makes its loaders."""
        if stage == "fit":
            self.train = self.batches("train")
        if stage in ("fit", "validate"):
            self.val = self.batches("val")
        if stage in ("test", "predict"):
            self.test = self.batches("test")

    @property
    def device(self) -> torch.device:
        """Device of the batches: the trainer's if there is one, else as set, default the CPU."""
        return self.trainer.strategy.root_device if self.trainer else self.chosen_device

    @device.setter
    def device(self, device: torch.device | str) -> None:
        self.chosen_device = torch.device(device)

    def stored(self, part: str) -> tuple[Tensor | OnDemand, Tensor, Tensor]:
        """Returns images uint8 [N, C, H, W] and labels [N] that hold a part, and its indices [n].

        Without labels these are zeros. N may exceed n: parts held out of the training images share
        their array.
        """
        splits = self.splits
        if part != "train" and part in splits.parts:
            images, labels = splits.parts[part], getattr(splits, f"{part}_labels")
            return images, labels, torch.arange(len(images))
        return splits.train_images, splits.train_labels, self.rows[part]

    def grey_images(self, part: str, count: int | None = None) -> Iterator[Tensor]:
        """Yields a part's first `count` images (default all) in chunks, on `device`, without noise.

        They are k / 255, and real numbers themselves.
        """
        images, _, rows = self.stored(part)
        images = images.to(self.device)
        for some in rows[:count].to(self.device).split(500):
            yield to_float(images[some], "real" if self.pixels == "real" else "grey")

    def labels(self, part: str) -> Labels:
        """Returns y [N, Y] of all N images that `stored` returns for a part, in the same order."""
        images, _, _ = self.stored(part)
        columns = [column for kind in self.y_columns for column in kind.values()]
        where = part if part in self.splits.parts else "train"
        return Labels.from_columns(columns, where, len(images), self.numbers)

    def batches(self, part: str) -> Batches:
        """Returns the loader of a part's batches for this process; copies the images to `device`.

        The binary pixels of validation and test images are drawn once, here. Images in a large file
        are not copied, but read as they are needed, unless `in_memory` says otherwise.

        Raises:
            UserError: If batches cannot be divided over the trainer's devices.
        """
        images, _, rows = self.stored(part)
        labels: Tensor | Labels = self.labels(part)
        pixels, device = self.pixels, self.device
        large = isinstance(images, OnDisk)
        draw: dict[str, Any] = {"window": TOGETHER if large else None}
        if part == "train":
            rows = rows.sort().values if large else rows  # for blocks of consecutive images
            draw = self.training_draw(rows, large)
            if isinstance(images, OnDisk) and self.holds_all(images):
                images = images.map_all()
        elif isinstance(images, OnDisk):
            if pixels == "binary":  # the same bits as in memory, drawn as images are read
                images = images.with_fixed_bits(f"{part} bits", self.split_seed, rows)
                pixels = "grey"
        else:
            if isinstance(images, OnDemand) or len(rows) < len(images):
                images, labels, rows = images[rows], labels[rows], torch.arange(len(rows))
            if pixels == "binary":  # the same bits for every batch size, device and epoch
                noise = seeded_generator(f"{part} bits", self.split_seed)
                images, pixels = binarize(images, noise).mul_(255), "grey"

        trainer = self.trainer
        world_size = trainer.world_size if trainer else 1
        self.check_batch_size(world_size)
        return Batches(
            images.to(device),
            labels.to(device),
            rows if isinstance(images, OnDisk) else rows.to(device),
            pixels=pixels,
            batch_size=self.train_batch_size(world_size) if part == "train" else self.batch_size,
            seed=self.seed if part == "train" else self.split_seed,
            shuffle=part == "train",
            rank=trainer.global_rank if trainer else 0,
            world_size=world_size,
            **draw,
        )

    def training_draw(self, rows: Tensor, large: bool) -> dict[str, Any]:
        """Returns the arguments of `Batches` that say how training images are drawn and changed.

        Args:
            rows: Their indices.
            large: Whether they are in a large file.

        Raises:
            UserError: If the images do not fit the settings.
        """
        self.check_training_draw()
        column = self.find_balanced_column()
        augment: Augment | None = None
        if self.flip or self.shift:
            augment = partial(flip_and_shift, flip=self.flip, shift=self.shift)
        return {
            "window": self.window * 10**6 if large else None,
            "classes": None if column is None else column.train[rows],
            "augment": augment,
        }

    def holds_all(self, images: OnDisk) -> bool:
        """Returns whether training images in a large file are all held, by `in_memory`."""
        if self.in_memory == "auto" and self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            return images.nbytes <= free / 2
        return self.in_memory == "all"

    def train_batch_size(self, world_size: int) -> int:
        """Returns the size of a training batch over all processes, at most the images there are.

        With fewer images than batch_size it is their number, rounded down to a multiple of
        world_size; it may be 0.
        """
        few = len(self.rows["train"])
        return min(self.batch_size, few - few % world_size)

    def train_dataloader(self) -> Batches:
        """Called by Lightning in fit: returns the training batches made in `setup`."""
        return self.train

    def val_dataloader(self) -> Batches:
        """Called by Lightning in fit and validate: returns validation batches made in `setup`."""
        return self.val

    def test_dataloader(self) -> Batches:
        """Called by Lightning in test: returns the test batches made in `setup`."""
        return self.test

    predict_dataloader = test_dataloader

    def transfer_batch_to_device(self, batch: Any, device: torch.device, _: int) -> Any:
        """Called by Lightning for each batch: returns it as is, for it is on the device."""
        return batch


def num_held_out(size: float, count: int) -> int:
    """Returns `size`, unchecked, or if below one that fraction of `count`, at least 1; 0 for 0.

    This many of `count` images are held out.
    """
    return max(1, round(size * count)) if 0 < size < 1 else int(size)
