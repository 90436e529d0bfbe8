"""Sprites to the description of dSprites (Matthey et al., 2017), drawn when they are asked for.

https://github.com/google-deepmind/dsprites-dataset: a white square, ellipse or heart on black, at 6
scales linear in [0.5, 1], 40 orientations linear in [0, 2 pi] and 32 x 32 positions. Both ends
of each range are taken, as in the `latents_values` of the original file, so that the first and
the last orientation are one picture. How large a shape is and how far it moves the description
leaves open. Here all have the same area, which gives the mean pixel of the original, 0.0425, and
their centres of mass are spread evenly over the middle half of the image.
"""

import math
from dataclasses import dataclass, replace
from typing import Annotated, Self

import torch
from pydantic import Field
from torch import Tensor

from vaelab.data.factors import Factors
from vaelab.data.splits import OnDemand, Splits

SHAPES = ("square", "ellipse", "heart")
NAMES = ("shape", "scale", "orientation", "position_x", "position_y")
AREA = 0.0718  # of a shape at scale 1, as a part of the image's
REACH = math.sqrt(2 / math.pi)  # of the ellipse, the longest: from its centre, for an area of 1
RADIUS = 1 / math.sqrt(4 + math.pi)  # of the two half discs of a heart with an area of 1
LIFT = RADIUS**3 * (math.pi + 4 / 3) * math.sqrt(0.5)  # of its centre above that of its square
CHUNK = 256  # sprites drawn at a time, which bounds memory and stays in a CPU's cache


class Sprites:
    """All sprites of a grid, as the training part; the label is the shape.

    Args:
        size: Pixels a side.
        scales: Values of the scale.
        orientations: Values of the orientation; the last one repeats the first.
        positions: Values of the position, across as well as down.
    """

    note = "drawn as they are needed; data=dsprites reads the original file"

    def __init__(
        self,
        size: Annotated[int, Field(ge=16)],
        scales: Annotated[int, Field(ge=2)],
        orientations: Annotated[int, Field(ge=3)],
        positions: Annotated[int, Field(ge=2)],
    ) -> None:
        self.size = size
        self.factors = grid(scales, orientations, positions)

    def __call__(self) -> Splits:
        return whole_grid(drawing(self.size, self.factors), self.factors)


def grid(scales: int, orientations: int, positions: int) -> Factors:
    """The factors of sprites; numbers are the scale, the cosine and the sine of the orientation,
    and the positions on [0, 1], to the right and down.
    """
    turns = torch.linspace(0, 2 * math.pi, orientations, dtype=torch.float64).tolist()
    places = torch.linspace(0, 1, positions)[:, None].tolist()
    numbers = {
        "scale": torch.linspace(0.5, 1, scales)[:, None].tolist(),
        "orientation": [[math.cos(turn), math.sin(turn)] for turn in turns],
        "position_x": places,
        "position_y": places,
    }
    return Factors(NAMES, (3, scales, orientations, positions, positions), numbers, SHAPES)


def whole_grid(images: OnDemand, factors: Factors) -> Splits:
    """All images of a grid as the training part, labelled with the first factor."""
    labels = torch.arange(factors.sizes[0]).repeat_interleave(factors.strides[0])
    none = torch.empty(0, *images.shape[1:], dtype=torch.uint8)
    count = factors.sizes[0]
    return Splits(images, labels, none, labels[:0], count, factors, class_names=factors.first)


@dataclass(frozen=True)
class Drawing(OnDemand):
    """Draws sprites, each in a window around it.

    It takes sums, products and comparisons of float32, which every device rounds alike, and no
    value has to be known to the host. Lengths are in sides of a square as large as the shape at
    scale 1.

    Args:
        factors: P positions, S scales and O orientations among them.
        size: Pixels a side.
        pixels: int64 [P, W], the pixels that the window has along an axis.
        offsets: [P, W], their distances from the centre of the sprite.
        turns: [S, O, 2], cosine and sine of the orientation over the scale.
    """

    factors: Factors
    size: int
    pixels: Tensor
    offsets: Tensor
    turns: Tensor

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.factors.num_images, 1, self.size, self.size

    @property
    def device(self) -> torch.device:
        return self.turns.device

    def to(self, device: torch.device | str) -> Self:
        tables = {name: getattr(self, name).to(device) for name in ("pixels", "offsets", "turns")}
        return replace(self, **tables)

    def __getitem__(self, rows: Tensor) -> Tensor:
        images = torch.zeros(len(rows), self.size**2, dtype=torch.uint8, device=self.device)
        for part, chosen in zip(images.split(CHUNK), rows.split(CHUNK), strict=True):
            part.scatter_(1, *self.window(chosen))
        return images.view(len(rows), *self.shape[1:])

    def window(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Which pixels of the image are in the window, and what they are, both [n, W * W]."""
        shape, scale, orientation, x, y = self.factors.of(rows).unbind(-1)
        cos, sin = self.turns[scale, orientation].split(1, -1)  # [n, 1]
        right, down = self.offsets[x], self.offsets[y]  # [n, W]
        u = (cos * right)[:, None, :] + (sin * down)[:, :, None]  # [n, W, W]
        v = (cos * down)[:, :, None] - (sin * right)[:, None, :]
        kind = shape[:, None, None]
        other = torch.where(kind == 1, in_ellipse(u, v), in_heart(u, v))
        inside = torch.where(kind == 0, in_square(u, v), other)
        pixels = (self.pixels[y] * self.size)[:, :, None] + self.pixels[x][:, None, :]
        return pixels.flatten(1), inside.flatten(1).byte() * 255


def drawing(size: int, factors: Factors) -> Drawing:
    """The tables for images of `size` pixels a side."""
    _, scales, orientations, positions, _ = factors.sizes
    unit = math.sqrt(AREA) * size
    centres = torch.linspace(size / 4, 3 * size / 4, positions, dtype=torch.float64)[:, None]
    window = torch.arange(math.ceil(2 * REACH * unit))
    pixels = (centres - REACH * unit - 0.5).ceil().long() + window
    scale = torch.linspace(0.5, 1, scales, dtype=torch.float64)[:, None]
    angle = 2 * math.pi * (torch.linspace(0, 1, orientations, dtype=torch.float64) % 1)
    turns = torch.stack([angle.cos() / scale, angle.sin() / scale], -1)
    offsets = (pixels + 0.5 - centres) / unit
    return Drawing(factors, size, pixels, offsets.float(), turns.float())


# Whether points are in a shape of area 1 with its centre of mass at the origin; v points down.


def in_square(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(u.abs(), v.abs()) < 0.5


def in_ellipse(u: Tensor, v: Tensor) -> Tensor:
    """Twice as wide as high."""
    return u.square() * 0.25 + v.square() < 0.5 / math.pi


def in_heart(u: Tensor, v: Tensor) -> Tensor:
    """A square on its tip and a half disc on each of its upper sides."""
    across, down = u.abs() * math.sqrt(0.5), (v - LIFT) * math.sqrt(0.5)
    a, b = down + across, down - across  # along the sides; the other half is a mirror image
    in_disc = a.square() + (b + RADIUS).square() < RADIUS**2
    return (torch.maximum(a, -b) < RADIUS) | in_disc
