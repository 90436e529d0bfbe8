"""Log-densities of many distributions at many points. Shapes: M distributions, D latents."""

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal


def is_factorised_normal(q: Distribution) -> bool:
    """Returns True if q is `Independent(Normal)`; any other product of densities gives False."""
    return isinstance(q, Independent) and isinstance(q.base_dist, Normal)


def log_densities(q: Distribution, z: Tensor) -> Tensor:
    """Returns log-densities [..., M] of M distributions at points [..., D], float64 for normals.

    For factorised normals the result is a product of matrices, much faster, and in float64: its
    terms are larger than their sum, by the square of mean over scale. Others, and Apple's GPUs,
    which have no float64, take `log_prob` in the type of z.
    """
    if not is_factorised_normal(q) or z.device.type == "mps":
        return q.log_prob(z.unsqueeze(-2))
    z, mean, scale = (t.double() for t in (z, q.mean, q.stddev))
    precision = scale.square().reciprocal()
    constant = (mean.square() * precision / 2 + scale.log()).sum(-1)
    constant = constant + mean.shape[-1] * 0.5 * math.log(2 * math.pi)
    factors = torch.cat([precision / -2, mean * precision], -1)
    return torch.cat([z.square(), z], -1) @ factors.mT - constant
