from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Annotated, Any

import torch
from lightning import LightningDataModule
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from vaelab.data.batches import Batches
from vaelab.data.columns import Column, Labels
from vaelab.data.pixels import Pixels, binarize
from vaelab.data.splits import OnDemand, Splits
from vaelab.errors import UserError, nearest
from vaelab.randomness import generator

SHOWN = 12  # classes that are named
Share = Annotated[float, Field(gt=0, lt=1)]


class Images(LightningDataModule):
    """Training, validation and test images, in memory and on the device of the model.

    The validation and test images of a source that has none of its own are held out of the
    training part by `split_seed`, which also fixes the noise of their pixels. Binary pixels are
    the same bits in every run of every sweep; dequantised ones depend on the batch size too.

    Args:
        source: Called for the `Splits`.
        batch_size: Images in a batch: in training over all devices, which share it; in evaluation
            on one device, for they take turns.
        val_size: Training images held out for validation where there is no part for it, or, below
            one, their share.
        test_size: The same for the test.
        pixels: What is made of a pixel, see `vaelab.data.pixels`.
        columns: What y holds, by name: classes first, one-hot, and then numbers. By itself the
            label where there is one; with `numbers`, all columns of numbers.
        numbers: Whether a class that stands for numbers, such as an angle, is those in y.
        seed: Names the random streams of order and noise in training.
        split_seed: Names those of the split and of validation and test noise.

    Raises:
        UserError: If the sizes do not fit the images, or there is no such column.
    """

    def __init__(
        self,
        *,
        source: Callable[[], Splits],
        batch_size: PositiveInt,
        val_size: PositiveInt | Share,
        pixels: Pixels,
        test_size: NonNegativeInt | Share = 0,
        columns: list[str] | None = None,
        numbers: bool = False,
        seed: NonNegativeInt = 0,
        split_seed: NonNegativeInt = 0,
    ) -> None:
        super().__init__()
        self.source = source
        self.batch_size = batch_size
        self.val_size = val_size
        self.test_size = test_size
        self.pixels: Pixels = pixels
        self.columns = columns
        self.numbers = numbers
        self.seed = seed
        self.split_seed = split_seed
        self.device = "cpu"

    @cached_property
    def splits(self) -> Splits:
        return self.source()

    @property
    def shapes(self) -> dict[str, Any]:
        """What a model must know: x_shape (C, H, W), what y is made of, and pixels.

        `classes` has the number of classes of each column that is a class, `class_names` what they
        are called, and `numbers` the width of each column that is numbers, in the order of y.
        """
        classes, numbers = self.chosen
        return {
            "x_shape": tuple(self.splits.train_images.shape[1:]),
            "classes": {name: column.classes for name, column in classes.items()},
            "numbers": {name: column.width for name, column in numbers.items()},
            "class_names": {name: [*column.labels] for name, column in classes.items()},
            "pixels": self.pixels,
        }

    @cached_property
    def chosen(self) -> tuple[dict[str, Column], dict[str, Column]]:
        """The columns of y that are classes in it, and those that are numbers."""
        splits, names = self.splits, self.columns
        if names is None:
            names = splits.names if self.numbers else splits.names[: splits.num_classes > 0]
        for name in names:
            if name not in splits.names:
                held = nearest(name, splits.names) if splits.names else "they have none"
                raise UserError(f"data.columns: {name} is no column of these images; {held}")
        if len(set(names)) < len(names):
            raise UserError(f"data.columns=[{','.join(names)}]: one of them is there twice")
        columns = {name: splits.column(name) for name in names}
        numbers = {n: c for n, c in columns.items() if c.width and (self.numbers or not c.classes)}
        if self.columns is None and self.numbers:
            return {}, numbers
        return {n: c for n, c in columns.items() if n not in numbers}, numbers

    @cached_property
    def rows(self) -> dict[str, Tensor]:
        """The rows of the training part that are for training, validation and (perhaps) test."""
        count = len(self.splits.train_images)
        val_size, test_size = (
            0 if part in self.splits.parts else rounded(size, count)
            for part, size in (("val", self.val_size), ("test", self.test_size))
        )
        held_out = val_size + test_size
        if held_out >= count:
            raise UserError(
                f"data.val_size={self.val_size} and data.test_size={self.test_size} leave nothing "
                f"of the {count:,} images for training"
            )
        shuffled = torch.randperm(count, generator=generator("split", self.split_seed))
        sizes = [count - held_out, val_size, test_size]
        return dict(zip(("train", "val", "test"), shuffled.split(sizes), strict=True))

    @property
    def sizes(self) -> dict[str, int]:
        """The number of images for training, validation and test; raises UserError for none."""
        own = {part: len(images) for part, images in self.splits.parts.items() if part != "train"}
        sizes = {name: len(part) for name, part in self.rows.items()} | own
        if not sizes["test"]:
            raise UserError("data.test_size=0, but these images have no test part of their own")
        return sizes

    def check(self, world_size: int) -> None:
        """Raises UserError unless a batch can be divided over so many devices."""
        if self.batch_size % world_size:
            raise UserError(
                f"data.batch_size={self.batch_size} cannot be divided over {world_size} devices"
            )
        if len(self.rows["train"]) < world_size:
            few = len(self.rows["train"])
            raise UserError(f"{few} training images are too few for {world_size} devices")

    def described(self) -> list[str]:
        """What is to be known of the images before they are trained on, in words."""
        splits = self.splits
        low, high = splits.pixel_range
        found = [f"pixels from {low} to {high}"]
        if span := getattr(self.source, "span", None):
            found[0] += f", which were {span[0]:g} to {span[1]:g}"
        if splits.num_classes:
            names = splits.column("label").labels
            shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
            found.append(f"{len(names)} classes: {shown}")
        own = [f"{part}_images" for part in splits.parts if part != "train"]
        if splits.val_images is not None:
            found.append(f"{' and '.join(own)} of their own")
        if splits.unused:
            found.append(f"not used: {', '.join(splits.unused)}")
        if self.batch_size > len(self.rows["train"]):
            few = len(self.rows["train"])
            found.append(f"all {few} images in a batch, for data.batch_size={self.batch_size}")
        return found

    def setup(self, stage: str) -> None:
        if stage == "fit":
            self.train = self.batches("train")
        if stage in ("fit", "validate"):
            self.val = self.batches("val")
        if stage == "test":
            self.test = self.batches("test")

    @property
    def device(self) -> torch.device:
        """Where the batches are: that of the trainer, if there is one, or the one it was set to."""
        return self.trainer.strategy.root_device if self.trainer else self.chosen_device

    @device.setter
    def device(self, device: torch.device | str) -> None:
        self.chosen_device = torch.device(device)

    def stored(self, part: str) -> tuple[Tensor | OnDemand, Tensor, Tensor]:
        """Images uint8 [N, C, H, W], labels [N], and which of the N rows are of a part."""
        splits = self.splits
        if part != "train" and part in splits.parts:
            images, labels = splits.parts[part], getattr(splits, f"{part}_labels")
            return images, labels, torch.arange(len(images))
        return splits.train_images, splits.train_labels, self.rows[part]

    def grey(self, part: str, count: int | None = None) -> Iterator[Tensor]:
        """The first `count` images of a part as k / 255, some at a time, on `device`."""
        images, _, rows = self.stored(part)
        images = images.to(self.device)
        for some in rows[:count].to(self.device).split(500):
            yield images[some].float() / 255

    def labels(self, part: str) -> Labels:
        """The y [N, Y] of the N images of which `stored` has those of a part."""
        images, _, _ = self.stored(part)
        columns = [column for kind in self.chosen for column in kind.values()]
        where = part if part in self.splits.parts else "train"
        return Labels.of(columns, where, len(images), self.numbers)

    def batches(self, part: str) -> Batches:
        """The batches of a part, on `device` and of this process."""
        images, _, rows = self.stored(part)
        labels: Tensor | Labels = self.labels(part)
        pixels = self.pixels
        if part != "train":
            if isinstance(images, OnDemand) or len(rows) < len(images):
                images, labels, rows = images[rows], labels[rows], torch.arange(len(rows))
            if pixels == "binary":  # the same bits for every batch size, device and epoch
                noise = generator(f"{part} bits", self.split_seed)
                images, pixels = binarize(images, noise).mul_(255), "grey"

        trainer, device = self.trainer, self.device
        world_size = trainer.world_size if trainer else 1
        self.check(world_size)
        return Batches(
            images.to(device),
            labels.to(device),
            rows.to(device),
            pixels=pixels,
            batch_size=self.fitting(world_size) if part == "train" else self.batch_size,
            seed=self.seed if part == "train" else self.split_seed,
            shuffle=part == "train",
            rank=trainer.global_rank if trainer else 0,
            world_size=world_size,
        )

    def fitting(self, world_size: int) -> int:
        """The images in a training batch: as many as there are, where these are fewer."""
        few = len(self.rows["train"])
        return min(self.batch_size, few - few % world_size)

    def train_dataloader(self) -> Batches:
        return self.train

    def val_dataloader(self) -> Batches:
        return self.val

    def test_dataloader(self) -> Batches:
        return self.test

    def transfer_batch_to_device(self, batch: Any, device: torch.device, _: int) -> Any:
        return batch  # it is there already


def rounded(size: float, count: int) -> int:
    """A number of images, or a share of `count`, which is of one at least."""
    return max(1, round(size * count)) if 0 < size < 1 else int(size)
