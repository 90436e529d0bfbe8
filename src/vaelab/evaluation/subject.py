"""What the numbers are of."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor

from vaelab.data import Images
from vaelab.elbo import ELBO

Batch = tuple[Tensor, Tensor]  # x [B, C, H, W] and y [B, Y]


@dataclass(frozen=True)
class Subject:
    """A trained model, its data, and what measuring them needs.

    Attributes:
        model: In evaluation mode.
        data: Its batches are on the model's device.
        cache: Folder for what is made once for a data set.
        seed: Of all that is drawn.
        track: Shows the progress through an iterable; takes a description.
    """

    model: ELBO
    data: Images
    cache: Path
    seed: int = 0
    track: Callable[..., Iterable[Any]] = track

    @cached_property
    def images(self) -> Batch:
        """All test images, as the model sees them, and their labels."""
        batches = self.data.batches("test")
        batches.batch_size = 100  # on which the noise of dequantised pixels depends
        x, y = zip(*batches, strict=True)
        return torch.cat(x), torch.cat(y)

    @cached_property
    def codes(self) -> Tensor:
        """The posterior means of all test images, [N, D]."""
        with torch.no_grad():
            found = [self.model.encode(x, y).mean for x, y in self.test("codes of test images")]
        return torch.cat(found)

    def test(self, description: str, size: int = 100, count: int | None = None) -> Iterable[Batch]:
        """The test images, or the first `count` of them, in batches of `size`."""
        x, y = (part[:count] for part in self.images)
        batches = list(zip(x.split(size), y.split(size), strict=True))
        return self.track(batches, description)
