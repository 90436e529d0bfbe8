"""What one x is: the words for its shape, and the names and units of its numbers.

x is an image (C, H, W), a signal (C, L) of C channels and L steps, or a vector (D,).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor

KINDS = {1: "vectors", 2: "signals", 3: "images"}
"""What x are called, by the number of axes of one."""


def kind_text(x_shape: Sequence[int]) -> str:
    """Returns what x of this shape are called: images, signals or vectors."""
    return KINDS[len(x_shape)]


def size_text(x_shape: Sequence[int]) -> str:
    """Returns the size of one x in words: `28 x 28 x 1`, `100 steps x 2` or `5 numbers`."""
    channels, *space = x_shape
    if len(space) == 1:
        return f"{space[0]} steps x {channels}"
    return " x ".join(map(str, [*space, channels])) if space else f"{channels} numbers"


def x_text(x_shape: Sequence[int]) -> str:
    """Returns kind and size of x in words: `28 x 28 x 1 images` or `vectors of 5 numbers`."""
    kind, size = kind_text(x_shape), size_text(x_shape)
    return f"{size} {kind}" if len(x_shape) == 3 else f"{kind} of {size}"


@dataclass(frozen=True)
class Units:
    """Names of a vector's numbers or a signal's channels, and how to restore them as stored.

    A stored number is x * scale + mean, with those of its column or channel.

    Attributes:
        names: [C], of columns or channels.
        mean: [C]; 0 if the numbers are not standardised.
        scale: [C]; 1 if the numbers are not standardised.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Returns the units that `plain` describes."""
        return cls(*(tuple(plain[name]) for name in ("names", "mean", "scale")))

    @classmethod
    def default(cls, count: int) -> Self:
        """Returns the units of `count` columns or channels that are as stored, named 0, 1, ..."""
        return cls(tuple(map(str, range(count))), (0.0,) * count, (1.0,) * count)

    @property
    def plain(self) -> dict[str, Any]:
        """The attributes as plain lists, for checkpoints and JSON."""
        return {"names": [*self.names], "mean": [*self.mean], "scale": [*self.scale]}

    def standardize(self, stored: Tensor, axes: int) -> Tensor:
        """Returns x [..., C, *space] in float32 of stored numbers; `axes` is that of one x."""
        shape = (-1, *[1] * (axes - 1))
        x = stored.double()
        x = (x - x.new_tensor(self.mean).view(shape)) / x.new_tensor(self.scale).view(shape)
        return x.float()

    def restore(self, x: Tensor, axes: int) -> Tensor:
        """Returns x [..., C, *space] as stored, float64 on the CPU; `axes` is that of one x."""
        shape = (-1, *[1] * (axes - 1))
        x = x.detach().cpu().double()
        return x * x.new_tensor(self.scale).view(shape) + x.new_tensor(self.mean).view(shape)
