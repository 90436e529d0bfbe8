"""Loader that slices batches out of tensors in memory, on their device and without workers."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from vaelab.data.columns import Labels
from vaelab.data.pixels import Pixels, add_noise, to_float
from vaelab.data.splits import OnDemand
from vaelab.randomness import seeded_generator

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
    ) -> None:
        self.images, self.labels, self.rows = images, labels, rows
        self.pixels: Pixels = pixels
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.rank, self.world_size = rank, world_size
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
            yield to_float(self.images[self.rows[:0]], self.pixels), self.labels[self.rows[:0]]
        self.position = 0

    def numbered_batches(self, first: int) -> Iterator[tuple[int, tuple[Tensor, Tensor]]]:
        """Yields (number, batch) from before `first` on; in evaluation, batches of all processes.

        Starts with the block of `first`: the batches whose noise is drawn at once, about `DRAWN`
        pixels.
        """
        together = max(1, DRAWN // (self.batch_size * math.prod(self.images.shape[1:])))
        for block, some in enumerate(self.epoch_order().split(together * self.batch_size)):
            if first < (block + 1) * together:
                yield from enumerate(self.make_block(some, block), block * together)

    def epoch_order(self) -> Tensor:
        """Returns the image indices [n] in the order of this epoch; as given without shuffling."""
        if not self.shuffle:
            return self.rows
        shuffled = torch.randperm(
            len(self.rows), generator=seeded_generator("order", self.seed, self.epoch)
        )
        return self.rows[shuffled.to(self.rows.device)]

    def make_block(self, rows: Tensor, block: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the batches of one block of rows; with shuffling, this process's share of each.

        The noise does not depend on the number of processes.
        """
        epoch = self.epoch if self.shuffle else 0
        noise = seeded_generator("pixels", self.seed, epoch, block, device=self.images.device)
        images = add_noise(self.images.index_select(0, rows), self.pixels, noise)
        labels = self.labels.index_select(0, rows)
        share = self.own_slice if self.shuffle else slice(None)
        for x, y in zip(images.split(self.batch_size), labels.split(self.batch_size), strict=True):
            yield to_float(x[share], self.pixels), y[share]

    @property
    def own_slice(self) -> slice:
        """The slice of a training batch that belongs to this process."""
        part = self.batch_size // self.world_size
        return slice(self.rank * part, (self.rank + 1) * part)
