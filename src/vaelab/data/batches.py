"""Batches as slices of tensors in memory."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from vaelab.data.columns import Labels
from vaelab.data.pixels import Pixels, add_noise, to_float
from vaelab.data.splits import OnDemand
from vaelab.randomness import generator

DRAWN = 2**19  # pixels, about, that are drawn at once; 128 digits at a time take twice as long


class Batches:
    """Batches (x [B, C, H, W], y [B, Y]) whose order and noise are a function of (seed, epoch).

    It is its own sampler, which is how Lightning tells it the epoch, and it has the state
    that Lightning keeps of a loader, so that training goes on in the middle of an epoch.

    Args:
        images: uint8 [N, C, H, W].
        labels: y [N, Y].
        rows: Which of the N images, in the order that they have when not shuffled.
        pixels: What is made of a pixel.
        batch_size: Images in a batch, over all processes.
        seed: Names the random streams.
        shuffle: Whether to draw a new order for each epoch, and leave out a ragged last batch.
        rank: Number of this process. If shuffled, in training, it gets its share of every batch;
            otherwise whole batches in turn, so that an evaluation draws and compares what one
            process would. Where those run out it gets an empty one: all have equally many.
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
        self.position = 0  # batches handed out in this epoch
        self.resumed = False

    def __len__(self) -> int:
        if self.shuffle:
            return len(self.rows) // self.batch_size
        return math.ceil(math.ceil(len(self.rows) / self.batch_size) / self.world_size)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]
        self.resumed = True

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        # Up to the first batch nothing may be fixed: Lightning tells the epoch after iter().
        self.position, self.resumed = self.position if self.resumed else 0, False
        first, stride = (0, 1) if self.shuffle else (self.rank, self.world_size)
        turns = range(first, stride * len(self), stride)[self.position :]
        for number, xy in self.whole(turns.start) if turns else ():
            if number in turns:
                self.position += 1
                yield xy
        if self.position < len(self):  # the last turn was another process's
            yield to_float(self.images[self.rows[:0]], self.pixels), self.labels[self.rows[:0]]
        self.position = 0

    def whole(self, first: int) -> Iterator[tuple[int, tuple[Tensor, Tensor]]]:
        """The batches from the one numbered `first` on, made several at a time."""
        together = max(1, DRAWN // (self.batch_size * math.prod(self.images.shape[1:])))
        for block, some in enumerate(self.order().split(together * self.batch_size)):
            if first < (block + 1) * together:
                yield from enumerate(self.make(some, block), block * together)

    def order(self) -> Tensor:
        if not self.shuffle:
            return self.rows
        shuffled = torch.randperm(
            len(self.rows), generator=generator("order", self.seed, self.epoch)
        )
        return self.rows[shuffled.to(self.rows.device)]

    def make(self, rows: Tensor, block: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Some batches in a row, or this process's share of them.

        The noise is the same whatever the number of processes.
        """
        epoch = self.epoch if self.shuffle else 0
        noise = generator("pixels", self.seed, epoch, block, device=self.images.device)
        images = add_noise(self.images.index_select(0, rows), self.pixels, noise)
        labels = self.labels.index_select(0, rows)
        share = self.share if self.shuffle else slice(None)
        for x, y in zip(images.split(self.batch_size), labels.split(self.batch_size), strict=True):
            yield to_float(x[share], self.pixels), y[share]

    @property
    def share(self) -> slice:
        """This process's part of a training batch."""
        part = self.batch_size // self.world_size
        return slice(self.rank * part, (self.rank + 1) * part)
