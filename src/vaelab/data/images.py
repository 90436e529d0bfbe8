from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import torch
from lightning import LightningDataModule
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor
from torch.nn.functional import one_hot

from vaelab.data.batches import Batches
from vaelab.data.pixels import Pixels, binarize
from vaelab.data.splits import OnDemand, Splits
from vaelab.errors import UserError
from vaelab.randomness import generator


class Images(LightningDataModule):
    """Training, validation and test images, in memory and on the device of the model.

    The validation images, and the test images of a source that has none, are held out of the
    training part by `split_seed`, which also fixes the noise of their pixels. Binary pixels are
    the same bits in every run of every sweep; dequantised ones depend on the batch size too.
    An official test part is the test set.

    Args:
        source: Called for the `Splits`.
        batch_size: Images in a batch, over all devices.
        val_size: Training images held out for validation.
        test_size: Training images held out as the test set where there is none.
        pixels: What is made of a pixel, see `vaelab.data.pixels`.
        seed: Names the random streams of order and noise in training.
        split_seed: Names those of the split and of validation and test noise.

    Raises:
        UserError: If the sizes do not fit the images.
    """

    def __init__(
        self,
        *,
        source: Callable[[], Splits],
        batch_size: PositiveInt,
        val_size: PositiveInt,
        pixels: Pixels,
        test_size: NonNegativeInt = 0,
        seed: NonNegativeInt = 0,
        split_seed: NonNegativeInt = 0,
    ) -> None:
        super().__init__()
        self.source = source
        self.batch_size = batch_size
        self.val_size = val_size
        self.test_size = test_size
        self.pixels: Pixels = pixels
        self.seed = seed
        self.split_seed = split_seed
        self.device = "cpu"

    @cached_property
    def splits(self) -> Splits:
        return self.source()

    @property
    def shapes(self) -> dict[str, Any]:
        """What a model must know: x_shape (C, H, W), num_classes Y and pixels."""
        return {
            "x_shape": tuple(self.splits.train_images.shape[1:]),
            "num_classes": self.splits.num_classes,
            "pixels": self.pixels,
        }

    @cached_property
    def rows(self) -> dict[str, Tensor]:
        """The rows of the training part that are for training, validation and (perhaps) test."""
        count = len(self.splits.train_images)
        test_size = 0 if len(self.splits.test_images) else self.test_size
        held_out = self.val_size + test_size
        if held_out >= count:
            raise UserError(
                f"data.val_size={self.val_size} and data.test_size={test_size} leave nothing "
                f"of the {count:,} images for training"
            )
        shuffled = torch.randperm(count, generator=generator("split", self.split_seed))
        sizes = [count - held_out, self.val_size, test_size]
        rows = dict(zip(("train", "val", "test"), shuffled.split(sizes), strict=True))
        if self.batch_size > sizes[0]:
            raise UserError(
                f"data.batch_size={self.batch_size} is larger than the {sizes[0]:,} training images"
            )
        return rows

    @property
    def sizes(self) -> dict[str, int]:
        """The number of images for training, validation and test; raises UserError for none."""
        sizes = {name: len(part) for name, part in self.rows.items()}
        sizes["test"] = sizes["test"] or len(self.splits.test_images)
        if not sizes["test"]:
            raise UserError("data.test_size=0, but these images have no test part of their own")
        return sizes

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
        if part == "test" and len(splits.test_images):
            return splits.test_images, splits.test_labels, torch.arange(len(splits.test_images))
        return splits.train_images, splits.train_labels, self.rows[part]

    def grey(self, part: str, count: int | None = None) -> Iterator[Tensor]:
        """The first `count` images of a part as k / 255, some at a time, on `device`."""
        images, _, rows = self.stored(part)
        images = images.to(self.device)
        for some in rows[:count].to(self.device).split(500):
            yield images[some].float() / 255

    def batches(self, part: str) -> Batches:
        """The batches of a part, on `device` and of this process."""
        images, labels, rows = self.stored(part)
        pixels = self.pixels
        if part != "train":
            images, labels, rows = images[rows], labels[rows], torch.arange(len(rows))
            if pixels == "binary":  # the same bits for every batch size, device and epoch
                noise = generator(f"{part} bits", self.split_seed)
                images, pixels = binarize(images, noise).byte() * 255, "grey"

        trainer, device = self.trainer, self.device
        world_size = trainer.world_size if trainer else 1
        if self.batch_size % world_size:
            raise UserError(
                f"data.batch_size={self.batch_size} cannot be divided over {world_size} devices"
            )
        if 0 < len(rows) < world_size:
            raise UserError(f"{len(rows)} {part} images are too few for {world_size} devices")
        return Batches(
            images.to(device),
            one_hot(labels, self.splits.num_classes).float().to(device)
            if self.splits.num_classes
            else torch.zeros(len(labels), 0, device=device),
            rows.to(device),
            pixels=pixels,
            batch_size=self.batch_size,
            seed=self.seed if part == "train" else self.split_seed,
            shuffle=part == "train",
            rank=trainer.global_rank if trainer else 0,
            world_size=world_size,
        )

    def train_dataloader(self) -> Batches:
        return self.train

    def val_dataloader(self) -> Batches:
        return self.val

    def test_dataloader(self) -> Batches:
        return self.test

    def transfer_batch_to_device(self, batch: Any, device: torch.device, _: int) -> Any:
        return batch  # it is there already
