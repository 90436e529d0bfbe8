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
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

ImagePixels = Literal["binary", "dequantized", "grey"]
Pixels = Literal["binary", "dequantized", "grey", "real"]


def draw(images: Tensor, kind: Pixels, generator: torch.Generator) -> Tensor:
    """Converts stored images to x in float32 by `kind`; draws noise for binary and dequantized.

    The generator is on the images' device.
    """
    return to_float(add_noise(images, kind, generator), kind)


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
    count = math.prod(shape)
    words = torch.empty(-(-count // 8), dtype=torch.int64)
    drawn = words.random_(-(2**63), None, generator=generator).view(torch.uint8)[:count]
    anew = np.flatnonzero(drawn.numpy() == 255)  # takes a tenth of the time of torch.nonzero
    drawn.numpy()[anew] = torch.randint(255, anew.shape, generator=generator).numpy()
    return drawn.view(shape)
