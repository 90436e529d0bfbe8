"""Densities of many distributions at many points. Shapes: M distributions, D latents."""

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal


def is_factorised(q: Distribution) -> bool:
    """Whether it is a product of normals, one for each latent."""
    return isinstance(q, Independent) and isinstance(q.base_dist, Normal)


def log_densities(q: Distribution, z: Tensor) -> Tensor:
    """Log-density under each of M distributions of each point [..., D]: [..., M].

    For factorised normals it is a product of matrices, much faster. Its terms are larger than
    their sum, by the square of mean over scale, so it is in double precision.
    """
    if not is_factorised(q) or z.device.type == "mps":  # Apple's GPUs have no double precision
        return q.log_prob(z.unsqueeze(-2))
    z, mean, scale = (t.double() for t in (z, q.mean, q.stddev))
    precision = scale.square().reciprocal()
    constant = (mean.square() * precision / 2 + scale.log()).sum(-1)
    constant = constant + mean.shape[-1] * 0.5 * math.log(2 * math.pi)
    factors = torch.cat([precision / -2, mean * precision], -1)
    return torch.cat([z.square(), z], -1) @ factors.mT - constant
