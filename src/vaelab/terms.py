"""One Monte Carlo estimate of the evidence lower bound.

Shapes: K samples, B images, D latents, C x H x W pixels. Units: nats per image.
"""

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence


@dataclass(frozen=True)
class Terms:
    """One Monte Carlo estimate of the ELBO and what it was made from."""

    x: Tensor  # [B, C, H, W]
    q: Distribution  # q(z | x, y), batch [B], event [D]
    prior: Distribution  # p(z | y), batch [B] or [], event [D]
    z: Tensor  # [K, B, D], drawn from q
    p: Distribution  # p(x | z, y), batch [K, B], event [C, H, W]

    @cached_property
    def log_likelihood(self) -> Tensor:
        """The log-likelihood log p(x | z, y), shape [K, B]."""
        return self.p.log_prob(self.x)

    @cached_property
    def distortion(self) -> Tensor:
        """-E_q[log p(x | z, y)], shape [B]."""
        return -self.log_likelihood.mean(0)

    @cached_property
    def rate_per_latent(self) -> Tensor:
        """The rate split over independent groups of latents, [B, D] for factorised q and prior.

        Where there is no closed form it is estimated from the samples, as one group: [B, 1].
        """
        try:
            if isinstance(self.q, Independent) and isinstance(self.prior, Independent):
                return kl_divergence(self.q.base_dist, self.prior.base_dist)
            return kl_divergence(self.q, self.prior).unsqueeze(-1)
        except NotImplementedError:
            log_ratio = self.q.log_prob(self.z) - self.prior.log_prob(self.z)
            return log_ratio.mean(0).unsqueeze(-1)

    @cached_property
    def rate(self) -> Tensor:
        """KL(q(z | x, y) || p(z | y)), shape [B]."""
        return self.rate_per_latent.sum(-1)

    @cached_property
    def elbo(self) -> Tensor:
        """A lower bound on log p(x | y), never weighted or annealed, shape [B]."""
        return -(self.distortion + self.rate)

    @cached_property
    def log_joint(self) -> Tensor:
        """Log p(x, z | y) of each sample, shape [K, B]."""
        return self.log_likelihood + self.prior.log_prob(self.z)

    @cached_property
    def log_weights(self) -> Tensor:
        """The log-ratio log p(x, z | y) - log q(z | x, y) of each sample, shape [K, B]."""
        return self.log_joint - self.q.log_prob(self.z)
