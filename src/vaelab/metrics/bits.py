"""Conversion of nats per image to bits per dimension."""

import math
from collections.abc import Sequence


def bits_per_dim(elbo: float, x_shape: Sequence[int], offset: float = 0.0) -> float:
    """Returns -ELBO / (C H W ln 2) + offset: bits per dimension, a pixel of a channel.

    Args:
        elbo: Nats per image, of a mass or a density over images of `x_shape`.
        x_shape: (C, H, W).
        offset: 8 for a density over dequantised pixels in [0, 1], which are 1/256 wide
            (Theis et al., 2016, arXiv:1511.01844, section 3.1); 0 for a mass.
    """
    return -elbo / (math.prod(x_shape) * math.log(2)) + offset
