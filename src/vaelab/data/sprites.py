"""Source of sprites drawn on demand, after the description of dSprites (Matthey et al., 2017).

https://github.com/google-deepmind/dsprites-dataset: a white square, ellipse or heart on black, at 6
scales linear in [0.5, 1], 40 orientations linear in [0, 2 pi] and 32 x 32 positions. Both ends
of each range are taken, as in the `latents_values` of the original file, so that the first and
the last orientation give the same image. The description does not say how large a shape is
and how far it moves. Here all shapes have the same area, which gives the mean pixel of the
original, 0.0425, and their centres of mass are spread evenly over the middle half of the image.
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
CHANGED_BY = {"flip": ("orientation", "position_x"), "shift": ("position_x", "position_y")}
AREA = 0.0718  # of a shape at scale 1, as a fraction of the image
REACH = math.sqrt(2 / math.pi)  # of the ellipse, the longest: from its centre, for an area of 1
RADIUS = 1 / math.sqrt(4 + math.pi)  # of the two half discs of a heart with an area of 1
LIFT = RADIUS**3 * (math.pi + 4 / 3) * math.sqrt(0.5)  # of its centre above that of its square
CHUNK = 256  # sprites drawn at a time, which bounds memory and stays in a CPU's cache


class Sprites:
    """Source of sprites drawn on demand: a complete grid as training part, labelled by shape.

    Args:
        size: Pixels a side.
        scales: Number of scales.
        orientations: Number of orientations; the last one repeats the first.
        positions: Number of positions, horizontally as well as vertically.
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
        self.factors = sprite_factors(scales, orientations, positions)

    def __call__(self) -> Splits:
        """Returns the data set; draws no image yet, and reads and writes no file."""
        return grid_splits(build_drawing(self.size, self.factors), self.factors)


def sprite_factors(scales: int, orientations: int, positions: int) -> Factors:
    """Returns the factors of sprites: shape, scale, orientation, position_x and position_y.

    All but the shape have numbers: the scale, cosine and sine of the orientation, and the positions
    on [0, 1] to the right and down.
    """
    turns = torch.linspace(0, 2 * math.pi, orientations, dtype=torch.float64).tolist()
    steps = torch.linspace(0, 1, positions)[:, None].tolist()
    numbers = {
        "scale": torch.linspace(0.5, 1, scales)[:, None].tolist(),
        "orientation": [[math.cos(turn), math.sin(turn)] for turn in turns],
        "position_x": steps,
        "position_y": steps,
    }
    sizes = (3, scales, orientations, positions, positions)
    return Factors(NAMES, sizes, numbers, SHAPES, CHANGED_BY)


def grid_splits(images: OnDemand, factors: Factors) -> Splits:
    """Returns all images of a grid as training part, labelled by the first factor; no test part."""
    labels = torch.arange(factors.sizes[0]).repeat_interleave(factors.strides[0])
    none = torch.empty(0, *images.shape[1:], dtype=torch.uint8)
    count = factors.sizes[0]
    return Splits(images, labels, none, labels[:0], count, factors, class_names=factors.first)


@dataclass(frozen=True)
class Drawing(OnDemand):
    """Sprites drawn on indexing, each within a window of W x W pixels around it.

    Drawing takes only sums, products and comparisons of float32, which every device rounds alike,
    and never waits for the device. Lengths are in units of the side of a square with the area of a
    shape at scale 1.

    Args:
        factors: The factors, with P positions, S scales and O orientations.
        size: Pixels a side.
        pixels: Indices of the window's pixels along an axis by position, int64 [P, W].
        offsets: Distances of these pixels from the centre of the sprite, [P, W].
        turns: Cosine and sine of the orientation, divided by the scale, [S, O, 2].
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
        """Returns a copy that draws on a device."""
        tables = {name: getattr(self, name).to(device) for name in ("pixels", "offsets", "turns")}
        return replace(self, **tables)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Returns images uint8 [n, 1, size, size], 0 or 255, by indices [n] on the same device."""
        images = torch.zeros(len(rows), self.size**2, dtype=torch.uint8, device=self.device)
        for part, chosen in zip(images.split(CHUNK), rows.split(CHUNK), strict=True):
            part.scatter_(1, *self.draw_windows(chosen))
        return images.view(len(rows), *self.shape[1:])

    def draw_windows(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Returns flat indices of the windows' pixels and values, 0 or 255, both [n, W * W]."""
        shape, scale, orientation, x, y = self.factors.values_at(rows).unbind(-1)
        cos, sin = self.turns[scale, orientation].split(1, -1)  # [n, 1]
        right, down = self.offsets[x], self.offsets[y]  # [n, W]
        u = (cos * right)[:, None, :] + (sin * down)[:, :, None]  # [n, W, W]
        v = (cos * down)[:, :, None] - (sin * right)[:, None, :]
        kind = shape[:, None, None]
        other = torch.where(kind == 1, is_in_ellipse(u, v), is_in_heart(u, v))
        inside = torch.where(kind == 0, is_in_square(u, v), other)
        pixels = (self.pixels[y] * self.size)[:, :, None] + self.pixels[x][:, None, :]
        return pixels.flatten(1), inside.flatten(1).byte() * 255


def build_drawing(size: int, factors: Factors) -> Drawing:
    """Returns the `Drawing` of a grid: tables to draw its sprites at `size` pixels a side."""
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


# Shapes have area 1 and their centre of mass at the origin; v points down.


def is_in_square(u: Tensor, v: Tensor) -> Tensor:
    """Returns whether points (u, v) are in the square of area 1."""
    return torch.maximum(u.abs(), v.abs()) < 0.5


def is_in_ellipse(u: Tensor, v: Tensor) -> Tensor:
    """Returns whether points (u, v) are in the ellipse of area 1, twice as wide as high."""
    return u.square() * 0.25 + v.square() < 0.5 / math.pi


def is_in_heart(u: Tensor, v: Tensor) -> Tensor:
    """Returns whether points (u, v) are in the heart of area 1.

    The heart is a square on its tip with a half disc on each of its upper sides.
    """
    across, down = u.abs() * math.sqrt(0.5), (v - LIFT) * math.sqrt(0.5)
    a, b = down + across, down - across  # coordinates along the sides; both halves are alike
    in_disc = a.square() + (b + RADIUS).square() < RADIUS**2
    return (torch.maximum(a, -b) < RADIUS) | in_disc
