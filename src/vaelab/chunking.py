"""How much is computed at a time where nothing is learned.

What fills a device, and on a processor still fits its caches: beyond them, fresh memory costs more
than the arithmetic in it.
"""

import math
from collections.abc import Sequence

import torch

PIXELS = {"cpu": 2**21, "mps": 2**24, "cuda": 2**25}
ENTRIES = {"cpu": 2**20, "mps": 2**23, "cuda": 2**25}


def portion(shape: Sequence[int], device: torch.device) -> int:
    """Images of shape (C, H, W) to send through a network at a time."""
    return max(1, PIXELS.get(device.type, PIXELS["cpu"]) // math.prod(shape))


def entries(device: torch.device) -> int:
    """Numbers in an intermediate result that can be computed in parts."""
    return ENTRIES.get(device.type, ENTRIES["cpu"])
