"""Loader that slices batches out of tensors in memory, or reads them ahead from a large file."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from vaelab.data.balance import balanced_draw
from vaelab.data.columns import Labels
from vaelab.data.on_disk import BLOCK, OnDisk, block_order, read_ahead
from vaelab.data.pixels import Pixels, add_noise, to_float
from vaelab.data.splits import OnDemand
from vaelab.randomness import seeded_generator

Augment = Callable[[Tensor, torch.Generator], Tensor]
DRAWN = 2**19  # pixels, about, whose noise is drawn at once; 128 digits take twice as long


class Batches:
    """Loader of batches x [B, C, H, W], y [B, Y]; shuffled, it drops an incomplete last batch.

    Order and noise are a function of (seed, epoch).

    It is its own sampler, so Lightning sets its epoch by `set_epoch`. Lightning keeps its
    `state_dict` in checkpoints, so training resumes in the middle of an epoch.

    Args:
        images: uint8 [N, C, H, W].
        labels: y [N, Y].
        rows: Indices of the images to use, in their order without shuffling.
        pixels: How x is made of stored pixels, see `vaelab.data.pixels`.
        batch_size: Images in a batch, over all processes.
        seed: Seed of order and noise.
        shuffle: Whether to draw a new order for each epoch, and drop an incomplete last batch.
        rank: Number of this process. With shuffling, in training, a process gets its share of
            every batch. Otherwise the processes take whole batches in turn, so that an evaluation
            gives the same values as one process; if none is left, a process gets an empty batch,
            and all get equally many.
        world_size: Number of processes.
        window: Bytes of images that are shuffled together, for images in a large file: a window
            of them is in few places of the file. A window is a multiple of the batches whose noise
            is drawn at once, so the order depends on the batch size. Without shuffling, the bytes
            that are read together. Default: all images are shuffled together.
        classes: With shuffling, the class of each of `rows`, int64 [n] on the CPU, to draw classes
            equally often; default: every image is drawn once.
        augment: (uint8 images, generator on their device) -> images, for training; default: none.
    """

    def __init__(
        self,
        images: Tensor | OnDemand,
        labels: Tensor | Labels,
        rows: Tensor,
        *,
        pixels: Pixels,
        batch_size: int,
        seed: int,
        shuffle: bool,
        rank: int = 0,
        world_size: int = 1,
        window: int | None = None,
        classes: Tensor | None = None,
        augment: Augment | None = None,
    ) -> None:
        self.images, self.labels, self.rows = images, labels, rows
        self.pixels: Pixels = pixels
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.rank, self.world_size = rank, world_size
        self.window, self.classes, self.augment = window, classes, augment
        self.sampler = self.batch_sampler = self
        self.epoch = 0
        self.position = 0  # batches yielded in this epoch
        self.resumed = False

    def __len__(self) -> int:
        if self.shuffle:
            return len(self.rows) // self.batch_size
        return math.ceil(math.ceil(len(self.rows) / self.batch_size) / self.world_size)

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch: sets the number that order and noise depend on."""
        self.epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        """Called by Lightning to save a checkpoint: returns the batches yielded in this epoch."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Called by Lightning on resuming: has the next iteration start at the saved position.

        At the end of an epoch that is the start of the next one.
        """
        self.position = state["position"] % len(self)
        self.resumed = True

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        # Nothing may depend on the epoch before the first batch: Lightning sets it after iter().
        self.position, self.resumed = self.position if self.resumed else 0, False
        first, stride = (0, 1) if self.shuffle else (self.rank, self.world_size)
        turns = range(first, stride * len(self), stride)[self.position :]
        for number, xy in self.numbered_batches(turns.start) if turns else ():
            if number in turns:
                self.position += 1
                yield xy
        if self.position < len(self):  # another process had the last batch
            yield to_float(self.images[self.rows[:0]], self.pixels), self.y(self.rows[:0])
        self.position = 0

    def numbered_batches(self, first: int) -> Iterator[tuple[int, tuple[Tensor, Tensor]]]:
        """Yields (number, batch) from before `first` on; in evaluation, batches of all processes.

        Starts with the block of `first`.
        """
        start = first // self.batches_per_block
        for block, (images, y) in enumerate(self.stored_blocks(start), start):
            yield from enumerate(self.make_block(images, y, block), block * self.batches_per_block)

    @property
    def batches_per_block(self) -> int:
        """The number of batches in a block, whose noise is drawn at once, about `DRAWN` pixels."""
        return max(1, DRAWN // (self.batch_size * self.image_pixels))

    @property
    def image_pixels(self) -> int:
        """C H W, which are the bytes of a stored image."""
        return math.prod(self.images.shape[1:])

    def stored_blocks(self, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields stored images and y of each block from number `start` on; may read a file."""
        size = self.batches_per_block * self.batch_size
        if not isinstance(self.images, OnDisk):
            for rows in self.epoch_order().split(size)[start:]:
                yield self.images.index_select(0, rows), self.y(rows)
            return
        device, together = self.images.device, self.images_per_window
        first, skipped = divmod(start * size, together)
        windows = self.epoch_order().split(together)[first:]
        for rows, images in read_ahead(self.images.read, windows):
            for some, stored in zip(rows.split(size), images.split(size), strict=True):
                if skipped > 0:
                    skipped -= size
                else:
                    yield stored.to(device, non_blocking=True), self.y(some)

    def y(self, rows: Tensor) -> Tensor:
        """Returns y [n, Y] of the images with indices [n], on the device of the labels."""
        if isinstance(self.images, OnDisk):  # whose rows are on the CPU
            rows = rows.to(self.images.device, non_blocking=True)
        return self.labels.index_select(0, rows)

    @property
    def images_per_window(self) -> int:
        """The number of images that are shuffled or read together, a multiple of a block."""
        size = self.batches_per_block * self.batch_size
        return max(1, (self.window or 0) // (self.image_pixels * size)) * size

    def epoch_order(self) -> Tensor:
        """Returns the image indices [n] in the order of this epoch; as given without shuffling."""
        if not self.shuffle:
            return self.rows
        rows = self.rows
        if self.classes is not None:
            noise = seeded_generator("balance", self.seed, self.epoch)
            rows = rows[balanced_draw(self.classes, noise).to(rows.device)]
        order = seeded_generator("order", self.seed, self.epoch)
        if self.window is not None:
            block = max(1, BLOCK // self.image_pixels)
            drawn = block_order(rows.cpu(), block, self.images_per_window, order)
            return drawn.to(rows.device)
        return rows[torch.randperm(len(rows), generator=order).to(rows.device)]

    def make_block(
        self, images: Tensor, labels: Tensor, block: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the batches of one block of images; with shuffling, this process's share of each.

        The noise does not depend on the number of processes.
        """
        epoch = self.epoch if self.shuffle else 0
        if self.augment is not None:
            drawn = ("augmentation", self.seed, epoch, block)
            images = self.augment(images, seeded_generator(*drawn, device=images.device))
        noise = seeded_generator("pixels", self.seed, epoch, block, device=images.device)
        images = add_noise(images, self.pixels, noise)
        share = self.own_slice if self.shuffle else slice(None)
        for x, y in zip(images.split(self.batch_size), labels.split(self.batch_size), strict=True):
            yield to_float(x[share], self.pixels), y[share]

    @property
    def own_slice(self) -> slice:
        """The slice of a training batch that belongs to this process."""
        part = self.batch_size // self.world_size
        return slice(self.rank * part, (self.rank + 1) * part)
