"""What a stored pixel, k in 0..255, becomes in x.

| kind        | x                | for                                                       |
|-------------|------------------|-----------------------------------------------------------|
| binary      | 1 if u < k / 255 | masses on {0, 1}: dynamic binarisation, redrawn each time |
| dequantized | (k + u) / 256    | densities on [0, 1] that bound the mass of k              |
| grey        | k / 255          | masses on k / 255; densities without bits per dimension   |

u is uniform on [0, 1) and independent for each pixel.
"""

from typing import Literal

import torch
from torch import Tensor

Pixels = Literal["binary", "dequantized", "grey"]


def draw(images: Tensor, kind: Pixels, generator: torch.Generator) -> Tensor:
    """X in float32 from uint8 images of the same shape; the generator is on their device."""
    if kind == "binary":
        return binarize(images, generator).float()
    if kind == "dequantized":
        noise = torch.rand(images.shape, generator=generator, device=images.device)
        return noise.add_(images).div_(256).clamp_(max=1 - 2**-24)  # rounding reaches 1
    return images.float().div_(255)


def binarize(images: Tensor, generator: torch.Generator) -> Tensor:
    """Coin flips with probability k / 255 exactly: an integer drawn from 0..254 is below k."""
    return torch.empty_like(images).random_(0, 255, generator=generator) < images
