"""What a stored pixel, k in 0..255, becomes in x.

| kind        | x                | for                                                       |
|-------------|------------------|-----------------------------------------------------------|
| binary      | 1 if u < k / 255 | masses on {0, 1}: dynamic binarisation, redrawn each time |
| dequantized | (k + u) / 256    | densities on [0, 1] that bound the mass of k              |
| grey        | k / 255          | masses on k / 255; densities without bits per dimension   |

u is uniform on [0, 1) and independent for each pixel.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Pixels = Literal["binary", "dequantized", "grey"]


def draw(images: Tensor, kind: Pixels, generator: torch.Generator) -> Tensor:
    """X in float32 from uint8 images of the same shape; the generator is on their device."""
    return to_float(add_noise(images, kind, generator), kind)


def add_noise(images: Tensor, kind: Pixels, generator: torch.Generator) -> Tensor:
    """The part of `draw` that is random, in as few bytes as it takes."""
    if kind == "binary":
        return binarize(images, generator)
    if kind == "dequantized":
        noise = torch.rand(images.shape, generator=generator, device=images.device)
        return noise.add_(images).div_(256).clamp_(max=1 - 2**-24)  # rounding reaches 1
    return images


def to_float(noisy: Tensor, kind: Pixels) -> Tensor:
    """The part of `draw` that is not random."""
    return noisy.float().div_(255) if kind == "grey" else noisy.float()


def binarize(images: Tensor, generator: torch.Generator) -> Tensor:
    """Coin flips, 0 or 1, with probability k / 255 exactly: a number drawn of 0..254 is below k.

    In uint8, whose conversion takes less time than that of bool.
    """
    if images.is_cpu:
        return below_255(images.shape, generator).lt_(images)
    return torch.empty_like(images).random_(0, 255, generator=generator).lt_(images)


def below_255(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Uniform integers of 0..254 in uint8, on the CPU.

    They are the bytes of random words, at a quarter of the steps that `random_` has the generator
    take; a byte of 255 is drawn anew.
    """
    count = math.prod(shape)
    words = torch.empty(-(-count // 8), dtype=torch.int64)
    drawn = words.random_(-(2**63), None, generator=generator).view(torch.uint8)[:count]
    anew = np.flatnonzero(drawn.numpy() == 255)  # a tenth of the time of `nonzero`
    drawn.numpy()[anew] = torch.randint(255, anew.shape, generator=generator).numpy()
    return drawn.view(shape)
