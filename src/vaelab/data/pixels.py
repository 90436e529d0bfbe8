"""Conversion of stored pixels k in 0..255 to model inputs x: binary, dequantized or grey.

| kind        | x                | for                                                       |
|-------------|------------------|-----------------------------------------------------------|
| binary      | 1 if u < k / 255 | masses on {0, 1}: dynamic binarisation, redrawn each time |
| dequantized | (k + u) / 256    | densities on [0, 1] that bound the mass of k              |
| grey        | k / 255          | masses on k / 255; densities without bits per dimension   |
| real        | k                | densities of numbers, not pixels, which are stored as floats |

u is uniform on [0, 1) and independent for each pixel.
"""

import math
import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from vaelab.errors import UserError
from vaelab.observations import PixelScale

ImagePixels = Literal["binary", "dequantized", "grey"]
Pixels = Literal["binary", "dequantized", "grey", "real"]
NOISE_BLOCK = 2**20
"""Integers of `RepeatedNoise` that are drawn together; a multiple of 8, the bytes of a word."""


def draw(images: Tensor, kind: Pixels, generator: torch.Generator) -> Tensor:
    """Converts stored images to x in float32 by `kind`; draws noise for binary and dequantized.

    The generator is on the images' device.
    """
    return to_float(add_noise(images, kind, generator), kind)


def from_numbers(values: Tensor, kind: str) -> Tensor:
    """Returns a user's vectors or signals; UserError if not finite, or for bits if not 0 and 1."""
    if not values.numel():
        raise UserError("there are no rows")
    if not values.to(torch.float64).isfinite().all():
        raise UserError("the numbers should be finite")
    if kind == "binary" and not ((values == 0) | (values == 1)).all():
        low, high = values.min().item(), values.max().item()
        raise UserError(f"the numbers are 0 and 1, and these are {low:g} to {high:g}")
    return values


def from_user(
    images: Tensor, kind: Pixels, generator: torch.Generator, scale: PixelScale | None = None
) -> Tensor:
    """Converts a user's images to x in float32, by `kind`; UserError for impossible values.

    Possible are booleans and numbers on the scale. Floats in [0, 1] that are x already are returned
    as they are: bits if the pixels are binary, and for dequantized ones those that are no k / 255.
    On another scale pixels are rounded to k first, as those of training were.

    Args:
        images: Of any shape and type.
        kind: The kind of pixel.
        generator: Of the noise, on the images' device.
        scale: The scale of their numbers (default: whole numbers 0 to 255, and floats in [0, 1]).

    Warns of images that are nearly black by another scale than [0, 1] only, see `PixelScale.doubt`.

    Raises:
        UserError: If the values are none of these.
    """
    if not images.numel():
        raise UserError("there are no images")
    if images.dtype == torch.bool:
        return draw(images.to(torch.uint8) * 255, kind, generator)
    if images.is_complex():
        raise UserError("pixels are real numbers, and these are complex")
    low, high = images.min().item(), images.max().item()
    scale, are_floats = scale or PixelScale(), images.is_floating_point()
    scale.check_reach(low, high, are_floats)
    if doubt := scale.doubt(low, high, are_floats):
        warnings.warn(doubt, stacklevel=2)
    if not are_floats or scale.floats != (0, 1):
        return draw(scale.levels(images), kind, generator)
    x = images.float().clamp(0, 1)
    levels = (x * 255).round()
    is_grey = bool(((x * 255 - levels).abs() < 1e-3).all())
    if kind == "grey" or (kind == "dequantized" and not is_grey):
        return x
    if kind == "binary":
        is_binary = bool(((x == 0) | (x == 1)).all())
        return x if is_binary else (torch.rand(x.shape, generator=generator) < x).float()
    return draw(levels.to(torch.uint8), kind, generator)


def add_noise(images: Tensor, kind: Pixels, generator: torch.Generator) -> Tensor:
    """Returns random bits, (k + u) / 256, or for grey and real the images themselves, uncopied.

    Binary pixels are uint8 0 or 1, dequantized ones float32 in [0, 1).
    """
    if kind == "binary":
        return binarize(images, generator)
    if kind == "dequantized":
        noise = torch.rand(images.shape, generator=generator, device=images.device)
        return noise.add_(images).div_(256).clamp_(max=1 - 2**-24)  # rounding reaches 1
    return images


def to_float(noisy: Tensor, kind: Pixels) -> Tensor:
    """Returns x in float32 from the result of `add_noise`: divides grey images by 255."""
    return noisy.float().div_(255) if kind == "grey" else noisy.float()


def binarize(images: Tensor, generator: torch.Generator) -> Tensor:
    """Returns random pixels uint8, 1 with probability exactly k / 255 and else 0.

    A pixel is 1 if a uniform integer of 0..254 is below k. uint8 converts to float faster than
    bool.
    """
    if images.is_cpu:
        return random_below_255(images.shape, generator).lt_(images)
    return torch.empty_like(images).random_(0, 255, generator=generator).lt_(images)


def random_below_255(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Returns uniform random integers of 0..254, uint8, on the CPU.

    They are the bytes of random words, which takes a quarter of the generator's steps that
    `random_` takes; bytes of 255 are drawn again.
    """
    drawn = random_bytes(math.prod(shape), generator)
    anew = np.flatnonzero(drawn.numpy() == 255)  # takes a tenth of the time of torch.nonzero
    drawn.numpy()[anew] = torch.randint(255, anew.shape, generator=generator).numpy()
    return drawn.view(shape)


def random_bytes(count: int, generator: torch.Generator) -> Tensor:
    """Returns uniform random bytes [count], on the CPU."""
    words = torch.empty(-(-count // 8), dtype=torch.int64)
    return words.random_(-(2**63), None, generator=generator).view(torch.uint8)[:count]


class RepeatedNoise:
    """What `random_below_255` returns, [count], a piece at a time, without holding all of it.

    It draws all once, to note the generator's state at the start of each block and what the bytes
    of 255 become, a byte for 256. A piece is drawn again from the state of its block.

    Args:
        count: The number of integers.
        generator: On the CPU; it is as after `random_below_255`.
    """

    def __init__(self, count: int, generator: torch.Generator) -> None:
        self.count = count
        self.states: list[Tensor] = []
        self.anew_before = [0]  # bytes of 255 before each block
        for start in range(0, count, NOISE_BLOCK):
            self.states.append(generator.get_state())
            drawn = random_bytes(min(NOISE_BLOCK, count - start), generator).numpy()
            self.anew_before.append(self.anew_before[-1] + int(np.count_nonzero(drawn == 255)))
        self.anew = torch.empty(self.anew_before[-1], dtype=torch.uint8)
        for some in self.anew.split(NOISE_BLOCK // 8):
            some.copy_(torch.randint(255, some.shape, generator=generator))
        self.last: tuple[int, Tensor] = -1, torch.empty(0)

    def between(self, start: int, stop: int) -> Tensor:
        """Returns the integers from index `start` to before `stop`, uint8."""
        blocks = range(start // NOISE_BLOCK, -(-stop // NOISE_BLOCK))
        pieces = [
            self.block(i)[max(0, start - i * NOISE_BLOCK) : stop - i * NOISE_BLOCK] for i in blocks
        ]
        return torch.cat(pieces)

    def block(self, i: int) -> Tensor:
        """Returns block i, uint8; keeps the last, since pieces are mostly read in order."""
        number, drawn = self.last
        if number != i:
            generator = torch.Generator()
            generator.set_state(self.states[i])
            drawn = random_bytes(min(NOISE_BLOCK, self.count - i * NOISE_BLOCK), generator)
            before, until = self.anew_before[i : i + 2]
            drawn.numpy()[drawn.numpy() == 255] = self.anew[before:until].numpy()
            self.last = i, drawn
        return drawn
