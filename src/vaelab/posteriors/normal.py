"""Gaussian posteriors, with diagonal (`Gaussian`) or full covariance (`FullGaussian`)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import (
    Distribution,
    Independent,
    MultivariateNormal,
    Normal,
    constraints,
    register_kl,
)

from vaelab.distributions.precision import full_precision, without_autocast


class Gaussian(nn.Module):
    """The diagonal Gaussian posterior, with mean and log-scale linear in the features."""

    def __init__(self, features: int, latent_dim: int) -> None:
        super().__init__()
        self.params = nn.Linear(features, 2 * latent_dim)

    def forward(self, h: Tensor) -> Distribution:
        """Returns N(m, diag(s^2)), batch [B] and event [D], of features h [B, F]."""
        mean, log_scale = full_precision(self.params(h)).chunk(2, dim=-1)
        return Independent(Normal(mean, log_scale.exp()), 1)


class CholeskyNormal(MultivariateNormal):
    """The Gaussian N(m, L L') of a mean m and L, lower triangular with positive diagonal."""

    arg_constraints = {  # noqa: RUF012
        "loc": constraints.real_vector,
        "scale_tril": constraints.lower_cholesky,
    }

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws z [*sample_shape, ..., D] with gradients, with autocast disabled."""
        with without_autocast(self.loc):
            return super().rsample(torch.Size(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns the log-density [...] in z's dtype, computed in float64 except on Apple's GPUs.

        Solving for the noise multiplies rounding errors by the ratio of the scales.
        """
        if value.device.type == "mps":  # Apple's GPUs have no double precision
            return super().log_prob(value)  # type: ignore[no-untyped-call]
        exact = MultivariateNormal(
            self.loc.double(), scale_tril=self.scale_tril.double(), validate_args=False
        )
        return exact.log_prob(value.double()).to(value)


@register_kl(CholeskyNormal, Independent)
def kl_cholesky_diagonal(q: CholeskyNormal, prior: Independent) -> Tensor:
    """Returns KL(q || p) [B]; raises NotImplementedError unless p is `Independent(Normal)`.

    KL(N(m, L L') || N(m', diag(s'^2))) = sum_i [log s'_i / L_ii
    + (sum_j L_ij^2 + (m_i - m'_i)^2) / (2 s'_i^2) - 1/2]. Called by `kl_divergence`; where
    it raises, `kl_per_group` estimates the KL from samples.
    """
    base = prior.base_dist
    if not isinstance(base, Normal):
        raise NotImplementedError
    diagonal = q.scale_tril.diagonal(dim1=-2, dim2=-1)
    square = q.scale_tril.square().sum(-1) + (q.loc - base.loc).square()
    return (base.scale.log() - diagonal.log() + 0.5 * (square / base.scale.square() - 1)).sum(-1)


class FullGaussian(nn.Module):
    """The Gaussian posterior N(m, L L') with full covariance: latents are correlated.

    Kingma & Welling (2019), arXiv:1906.02691, section 2.5.1. The mean, the logarithm of L's
    diagonal and the elements below it are linear in the features; with zeros below it is
    `Gaussian`.
    """

    below: Tensor

    def __init__(self, features: int, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.register_buffer("below", torch.tril_indices(latent_dim, latent_dim, -1), False)
        self.params = nn.Linear(features, 2 * latent_dim + self.below.shape[1])

    def forward(self, h: Tensor) -> Distribution:
        """Returns the `CholeskyNormal`, batch [B] and event [D], of features h [B, F]."""
        sizes = [self.latent_dim, self.latent_dim, self.below.shape[1]]
        mean, log_diagonal, lower = full_precision(self.params(h)).split(sizes, dim=-1)
        scale_tril = log_diagonal.exp().diag_embed()
        scale_tril[..., self.below[0], self.below[1]] = lower
        return CholeskyNormal(mean, scale_tril=scale_tril)
