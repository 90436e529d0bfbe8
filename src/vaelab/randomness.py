"""Random streams that have names, so that any step of a run can be taken again."""

from zlib import crc32

import numpy as np
import torch


def stream(purpose: str, *key: int) -> int:
    """The seed, 63 well-mixed bits, of a stream such as ("order", seed, epoch)."""
    words = (crc32(purpose.encode()), len(key), *key)
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)


def generator(purpose: str, *key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator at the start of that stream."""
    return torch.Generator(device).manual_seed(stream(purpose, *key))
