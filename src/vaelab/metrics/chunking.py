"""Chunk sizes for inference, by device.

A chunk fills a GPU. On a CPU it still fits the caches: beyond them, allocating memory costs more
than the arithmetic.
"""

import math
from collections.abc import Sequence

import torch

PIXELS_PER_CHUNK = {"cpu": 2**21, "mps": 2**24, "cuda": 2**25}
ENTRIES_PER_CHUNK = {"cpu": 2**20, "mps": 2**23, "cuda": 2**25}


def images_per_chunk(shape: Sequence[int], device: torch.device) -> int:
    """The number, at least 1, of images of shape (C, H, W) to send through a network at a time."""
    return max(1, PIXELS_PER_CHUNK.get(device.type, PIXELS_PER_CHUNK["cpu"]) // math.prod(shape))


def entries_per_chunk(device: torch.device) -> int:
    """The number of elements that an intermediate tensor, computed in chunks, may have."""
    return ENTRIES_PER_CHUNK.get(device.type, ENTRIES_PER_CHUNK["cpu"])
