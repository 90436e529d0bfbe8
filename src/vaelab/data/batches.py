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
        rank: Number of this process, which gets its share of every batch.
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
        full, rest = divmod(len(self.rows), self.batch_size)
        ragged = not self.shuffle and len(range(rest)[self.share(rest)]) > 0
        return full + ragged

    def share(self, count: int) -> slice:
        """This process's part of a batch: of equal parts in a row, the last perhaps smaller."""
        part = -(-count // self.world_size)
        return slice(self.rank * part, (self.rank + 1) * part)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]
        self.resumed = True

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        # Up to the first batch nothing may be fixed: Lightning tells the epoch after iter().
        start, self.resumed = self.position if self.resumed else 0, False
        together = max(1, DRAWN // (self.batch_size * math.prod(self.images.shape[1:])))
        for block, some in enumerate(self.order().split(together * self.batch_size)):
            first = block * together
            if first + together <= start:
                continue
            for batch, xy in enumerate(self.make(some, block), first):
                if start <= batch < len(self):
                    self.position = batch + 1
                    yield xy
        self.position = 0

    def order(self) -> Tensor:
        if not self.shuffle:
            return self.rows
        shuffled = torch.randperm(
            len(self.rows), generator=generator("order", self.seed, self.epoch)
        )
        return self.rows[shuffled.to(self.rows.device)]

    def make(self, rows: Tensor, block: int) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's share of some batches in a row.

        The noise is the same whatever the number of processes.
        """
        epoch = self.epoch if self.shuffle else 0
        noise = generator("pixels", self.seed, epoch, block, device=self.images.device)
        images = add_noise(self.images.index_select(0, rows), self.pixels, noise)
        labels = self.labels.index_select(0, rows)
        for x, y in zip(images.split(self.batch_size), labels.split(self.batch_size), strict=True):
            share = self.share(len(x))
            yield to_float(x[share], self.pixels), y[share]
