"""One Monte Carlo estimate of the evidence lower bound.

Shapes: K samples, B images, D latents, C x H x W pixels. Units: nats per image.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence

from vaelab.distributions.hierarchy import Hierarchy
from vaelab.lazy import lazy


@dataclass(frozen=True)
class Terms:
    """One Monte Carlo estimate of the ELBO and what it was made from."""

    x: Tensor  # [B, C, H, W]
    q: Distribution  # q(z | x, y), batch [B], event [D]
    prior: Distribution  # p(z | y), batch [B] or [], event [D]
    z: Tensor  # [K, B, D], drawn from q
    p: Distribution  # p(x | z, y), batch [K, B], event [C, H, W]

    @lazy
    def log_likelihood(self) -> Tensor:
        """The log-likelihood log p(x | z, y), shape [K, B]."""
        return self.p.log_prob(self.x)

    @lazy
    def distortion(self) -> Tensor:
        """-E_q[log p(x | z, y)], shape [B]."""
        return -self.log_likelihood.mean(0)

    @lazy
    def rate_per_latent(self) -> Tensor:
        """The rate split over independent groups of latents, [B, D] for factorised q and prior.

        Where there is no closed form it is estimated from the samples, as one group: [B, 1]. That
        of each level of a hierarchy is given the levels above it that were drawn.
        """
        rate = divergence(self.q, self.prior, self.z)
        return rate.mean(0) if rate.dim() > 2 else rate

    @lazy
    def rate(self) -> Tensor:
        """KL(q(z | x, y) || p(z | y)), shape [B]."""
        return self.rate_per_latent.sum(-1)

    @lazy
    def elbo(self) -> Tensor:
        """A lower bound on log p(x | y), never weighted or annealed, shape [B]."""
        return -(self.distortion + self.rate)

    @lazy
    def log_joint(self) -> Tensor:
        """Log p(x, z | y) of each sample, shape [K, B]."""
        return self.log_likelihood + self.prior.log_prob(self.z)

    @lazy
    def log_weights(self) -> Tensor:
        """The log-ratio log p(x, z | y) - log q(z | x, y) of each sample, shape [K, B]."""
        return self.log_joint - self.q.log_prob(self.z)


def divergence(q: Distribution, prior: Distribution, z: Tensor) -> Tensor:
    """KL(q || prior) split over groups of latents: [B, G] or, where it takes samples, [K, B, G]."""
    if isinstance(q, Hierarchy) and isinstance(prior, Hierarchy):
        levels = zip(q.given(z), prior.given(z), q.split(z), strict=True)
        rates = [divergence(*level) for level in levels]
        return torch.cat([rate.expand(*z.shape[:-1], -1) for rate in rates], -1)
    try:
        if isinstance(q, Independent) and isinstance(prior, Independent):
            return kl_divergence(q.base_dist, prior.base_dist)
        return kl_divergence(q, prior).unsqueeze(-1)
    except NotImplementedError:
        return (q.log_prob(z) - prior.log_prob(z)).unsqueeze(-1)
