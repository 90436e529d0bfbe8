"""Random streams that have names, so that any step of a run can be taken again."""

from hashlib import blake2b

import torch


def stream(purpose: str, *key: int) -> int:
    """The seed, 63 well-mixed bits, of a stream such as ("order", seed, epoch)."""
    name = repr((purpose, *key)).encode()
    return int.from_bytes(blake2b(name, digest_size=8).digest(), "little") >> 1


def generator(purpose: str, *key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator at the start of that stream."""
    return torch.Generator(device).manual_seed(stream(purpose, *key))
