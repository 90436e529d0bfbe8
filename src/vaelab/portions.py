"""How many images go through a network at a time where nothing is learned."""

import math
from collections.abc import Sequence

import torch

PIXELS = {"cpu": 2**21, "mps": 2**24, "cuda": 2**25}
"""At a time: what fills a device, and on a processor still fits its caches."""


def portion(shape: Sequence[int], device: torch.device) -> int:
    """Images of shape (C, H, W) at a time on a device."""
    return max(1, PIXELS.get(device.type, PIXELS["cpu"]) // math.prod(shape))
