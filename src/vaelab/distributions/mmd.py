"""Maximum mean discrepancy between two sets of samples.

Shapes: [...] leading dimensions, B samples in a set, D latents.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Kernel = Literal["gaussian", "inverse_multiquadratic"]


def squared_mmd(a: Tensor, b: Tensor, kernel: Kernel, scales: Sequence[float]) -> Tensor:
    """Returns the unbiased estimate of MMD^2, [...], of samples [..., B, D]; 0 where B = 1.

    It may be negative. Gretton et al. (2012), eq. 3; as in algorithm 2 of Tolstikhin et al. (2018),
    arXiv:1711.01558: the mean of k(a, a') and k(b, b') over pairs of different samples, less twice
    that of k(a, b) over all pairs. One sample has no pairs, so the last image of an evaluation,
    left over from full batches, does not count.

    Args:
        a: Samples of one distribution.
        b: As many samples of the other distribution.
        kernel: See `kernel_values`.
        scales: See `kernel_values`.
    """
    count = a.shape[-2]
    if count == 1:
        return (a - b).sum((-2, -1)) * 0

    def values(c: Tensor, d: Tensor) -> Tensor:
        """Returns the kernel of all pairs of samples, [..., B, B]."""
        return kernel_values(squared_distances(c, d), c.shape[-1], kernel, scales)

    within = off_diagonal_sum(values(a, a)) + off_diagonal_sum(values(b, b))
    return within / (count * (count - 1)) - 2 * values(a, b).mean((-2, -1))


def kernel_values(
    squares: Tensor, latent_dim: int, kernel: Kernel, scales: Sequence[float]
) -> Tensor:
    """Returns the kernel at squared distances d^2, summed over scales s; shape kept.

    With C = 2 D s, of which 2 D is the mean of d^2 between two draws from N(0, I): `gaussian` is
    exp(-d^2 / C), and `inverse_multiquadratic`, with heavier tails, C / (C + d^2) (Tolstikhin et
    al., 2018, section 4).
    """
    values = torch.zeros_like(squares)
    for scale in scales:
        ratio = squares / (2 * latent_dim * scale)
        values = values + ((-ratio).exp() if kernel == "gaussian" else 1 / (1 + ratio))
    return values


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Returns the squared Euclidean distances of all pairs, [..., B, B].

    From differences, as |a|^2 + |b|^2 - 2 a b loses digits by cancellation.
    """
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square()


def off_diagonal_sum(values: Tensor) -> Tensor:
    """Returns the sum [...] of the elements of [..., B, B] off the diagonal."""
    return values.sum((-2, -1)) - values.diagonal(dim1=-2, dim2=-1).sum(-1)
