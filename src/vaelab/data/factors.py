"""Grid of ground-truth factors, of which each combination is one image."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vaelab.data.columns import Column


@dataclass(frozen=True)
class Factors:
    """Complete grid of ground-truth factors: every combination is one image, the last fastest.

    Shapes: n images, F factors. A factor's value is its index on its axis, from 0.

    Attributes:
        names: Names of the factors.
        sizes: Number of values of each factor.
        numbers: Numbers of each value, [size, W], of the factors that are ordinal.
        first: Names of the values of the first factor, if they have names.
        changed_by: Names of the factors that an image has otherwise after a `flip`, left to right,
            and after a `shift`.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    numbers: Mapping[str, Sequence[Sequence[float]]] = field(default_factory=dict)
    first: tuple[str, ...] = ()
    changed_by: Mapping[str, Sequence[str]] = field(
        default_factory=lambda: {"flip": (), "shift": ()}
    )

    @property
    def num_images(self) -> int:
        return math.prod(self.sizes)

    @property
    def strides(self) -> tuple[int, ...]:
        """Distance in image indices between neighbouring values of each factor."""
        return tuple(math.prod(self.sizes[i + 1 :]) for i in range(len(self.sizes)))

    def values_at(self, rows: Tensor) -> Tensor:
        """Returns the factor values int64 [n, F] of the images with indices int64 [n]."""
        axes = zip(self.strides, self.sizes, strict=True)
        return torch.stack([rows // stride % size for stride, size in axes], -1)

    def column(self, name: str) -> Column:
        """Returns a factor of all images as a column of classes, with numbers if it is ordinal."""
        axis = self.names.index(name)
        values = torch.arange(self.num_images) // self.strides[axis] % self.sizes[axis]
        numbers = torch.tensor(self.numbers[name]) if name in self.numbers else None
        value_names = () if axis else self.first
        return Column(values, values[:0], self.sizes[axis], numbers, names=value_names)

    def rows(self, factors: Tensor) -> Tensor:
        """Returns the indices int64 [n] of the images with factor values int64 [n, F]."""
        return (factors * factors.new_tensor(self.strides)).sum(-1)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draws uniform, independent factor values, int64 [count, F], on the generator's device."""
        rows = torch.randint(
            self.num_images, (count,), generator=generator, device=generator.device
        )
        return self.values_at(rows)
