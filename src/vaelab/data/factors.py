import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vaelab.data.columns import Column


@dataclass(frozen=True)
class Factors:
    """A complete grid of ground-truth factors: every combination is one image, the last fastest.

    Shapes: n images, F factors. A factor's value is its place on its axis, from 0.

    Attributes:
        numbers: What these places stand for, a row for each, where they stand for numbers.
        first: What the values of the first factor are called, if they have names.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    numbers: Mapping[str, Sequence[Sequence[float]]] = field(default_factory=dict)
    first: tuple[str, ...] = ()

    @property
    def num_images(self) -> int:
        return math.prod(self.sizes)

    @property
    def strides(self) -> tuple[int, ...]:
        """How many rows it is to the next value of each factor."""
        return tuple(math.prod(self.sizes[i + 1 :]) for i in range(len(self.sizes)))

    def of(self, rows: Tensor) -> Tensor:
        """The factors int64 [n, F] of images by their rows int64 [n]."""
        axes = zip(self.strides, self.sizes, strict=True)
        return torch.stack([rows // stride % size for stride, size in axes], -1)

    def column(self, name: str) -> Column:
        """One factor of all images, as a class."""
        axis = self.names.index(name)
        places = torch.arange(self.num_images) // self.strides[axis] % self.sizes[axis]
        numbers = torch.tensor(self.numbers[name]) if name in self.numbers else None
        called = () if axis else self.first
        return Column(places, places[:0], self.sizes[axis], numbers, names=called)

    def rows(self, factors: Tensor) -> Tensor:
        """The rows int64 [n] of images by their factors int64 [n, F]."""
        return (factors * factors.new_tensor(self.strides)).sum(-1)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Factors int64 [count, F], each uniform and independent, on the generator's device."""
        rows = torch.randint(
            self.num_images, (count,), generator=generator, device=generator.device
        )
        return self.of(rows)
