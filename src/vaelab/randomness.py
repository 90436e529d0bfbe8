"""Seeds and generators of named random streams, so that any step of a run can be repeated."""

from hashlib import blake2b

import torch


def stream_seed(purpose: str, *key: int) -> int:
    """The seed, a 63-bit hash, of the random stream named by purpose and key.

    An example is `stream_seed("order", seed, epoch)`. It seeds nothing itself.
    """
    name = repr((purpose, *key)).encode()
    return int.from_bytes(blake2b(name, digest_size=8).digest(), "little") >> 1


def seeded_generator(
    purpose: str, *key: int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A new generator seeded with `stream_seed(purpose, *key)`; no global state is changed."""
    return torch.Generator(device).manual_seed(stream_seed(purpose, *key))
