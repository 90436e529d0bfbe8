"""`Terms`, one Monte Carlo estimate of the evidence lower bound.

Shapes: K samples, B images, D latents, C x H x W pixels. Units: nats per image.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaelab.distributions.divergence import kl_per_group
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
        """The rate of each latent [B, D]; fewer columns, down to [B, 1], where it does not split.

        It splits where q and prior factorise. Without a closed form it is estimated from the K
        samples, as [B, 1]. In a hierarchy, the rate of a level is conditional on the drawn latents
        of the levels above it.
        """
        rate = kl_per_group(self.q, self.prior, self.z)
        return rate.mean(0) if rate.dim() > 2 else rate

    @lazy
    def rate(self) -> Tensor:
        """The rate KL(q(z | x, y) || p(z | y)) [B], exact or estimated; infinite for a `Point`."""
        return self.rate_per_latent.sum(-1)

    @lazy
    def elbo(self) -> Tensor:
        """The ELBO estimate -(distortion + rate) [B], not weighted or annealed; -inf for a `Point`.

        Its expectation is at most log p(x | y).
        """
        return -(self.distortion + self.rate)

    @lazy
    def log_joint(self) -> Tensor:
        """The joint log-density log p(x, z | y) of each sample, shape [K, B]."""
        return self.log_likelihood + self.prior.log_prob(self.z)

    @lazy
    def log_weights(self) -> Tensor:
        """Log importance weights log p(x, z | y) - log q(z | x, y) [K, B]; raises for a `Point`."""
        return self.log_joint - self.q.log_prob(self.z)


def weighted(weight: Tensor, term: Tensor) -> Tensor:
    """Returns weight [] times a term of any shape, and 0 for a weight of 0 of an infinite term.

    So that a `Point`, whose rate is infinite, has a finite loss where the rate does not count.
    """
    return torch.where(weight == 0, 0.0, weight * term)
