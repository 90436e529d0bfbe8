"""`Terms`, one Monte Carlo estimate of the evidence lower bound, and the KL in it.

Shapes: K samples, B images, D latents, C x H x W pixels. Units: nats per image.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence

from vaelab.distributions.hierarchy import Hierarchy
from vaelab.distributions.lazy import lazy


@dataclass(frozen=True)
class Terms:
    """One Monte Carlo estimate of the ELBO by K samples of z; values are made once, when used.

    It holds the images, the distributions and the samples; nothing is weighted or annealed.
    """

    x: Tensor  # [B, C, H, W]
    q: Distribution  # q(z | x, y), batch [B], event [D]
    prior: Distribution  # p(z | y), batch [B] or [], event [D]
    z: Tensor  # [K, B, D], drawn from q
    p: Distribution  # p(x | z, y), batch [K, B], event [C, H, W]

    @lazy
    def log_likelihood(self) -> Tensor:
        """The log-likelihood log p(x | z, y) of each sample, summed over pixels, shape [K, B]."""
        return self.p.log_prob(self.x)

    @lazy
    def distortion(self) -> Tensor:
        """The distortion -E_q[log p(x | z, y)], the mean over the K samples, shape [B]."""
        return -self.log_likelihood.mean(0)

    @lazy
    def rate_per_latent(self) -> Tensor:
        """The rate of each latent, [B, D], or [B, 1] where it does not split over latents.

        It splits where q and prior factorise. Without a closed form it is estimated from the K
        samples, as [B, 1]. In a hierarchy, the rate of a level is conditional on the drawn latents
        of the levels above it, and the levels are concatenated.
        """
        rate = kl_per_group(self.q, self.prior, self.z)
        return rate.mean(0) if rate.dim() > 2 else rate

    @lazy
    def rate(self) -> Tensor:
        """The rate KL(q(z | x, y) || p(z | y)) [B]; estimated from z if not in closed form."""
        return self.rate_per_latent.sum(-1)

    @lazy
    def elbo(self) -> Tensor:
        """The estimated ELBO -(distortion + rate), never weighted or annealed, shape [B].

        Its expectation is at most log p(x | y).
        """
        return -(self.distortion + self.rate)

    @lazy
    def log_joint(self) -> Tensor:
        """The joint log-density log p(x, z | y) of each sample, shape [K, B]."""
        return self.log_likelihood + self.prior.log_prob(self.z)

    @lazy
    def log_weights(self) -> Tensor:
        """The log importance weights log p(x, z | y) - log q(z | x, y), shape [K, B]."""
        return self.log_joint - self.q.log_prob(self.z)


def kl_per_group(q: Distribution, prior: Distribution, z: Tensor) -> Tensor:
    """KL(q || prior) of each of G groups of latents: [B, G], or [K, B, G] if estimated from z.

    G is D where q and prior are `Independent`, otherwise 1. A pair without a registered closed form
    gets log q(z) - log prior(z). In a hierarchy each level is conditional on the levels above it in
    z, and the groups of all levels are concatenated, always as [K, B, G].
    """
    if isinstance(q, Hierarchy) and isinstance(prior, Hierarchy):
        levels = zip(q.levels_given(z), prior.levels_given(z), q.split(z), strict=True)
        rates = [kl_per_group(*level) for level in levels]
        return torch.cat([rate.expand(*z.shape[:-1], -1) for rate in rates], -1)
    try:
        if isinstance(q, Independent) and isinstance(prior, Independent):
            return kl_divergence(q.base_dist, prior.base_dist)
        return kl_divergence(q, prior).unsqueeze(-1)
    except NotImplementedError:
        return (q.log_prob(z) - prior.log_prob(z)).unsqueeze(-1)
