"""`kl_per_group`, the KL divergence of a posterior to a prior, group by group of latents.

Shapes: K samples, B images, D latents, G groups of latents. Units: nats.
"""

from typing import Protocol, runtime_checkable

from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence


@runtime_checkable
class HasConditionalKL(Protocol):
    """A distribution with `conditional_kl`, whose KL depends on drawn latents, as `Hierarchy`."""

    def conditional_kl(self, prior: Distribution, z: Tensor) -> Tensor:
        """Returns the KL to the prior of each group, given the latents drawn above, [K, B, G].

        Args:
            prior: A distribution over the same latents.
            z: Latents drawn from this distribution, [K, B, D].

        Raises:
            NotImplementedError: If there is no such KL to this prior.
        """
        ...


def kl_per_group(q: Distribution, prior: Distribution, z: Tensor) -> Tensor:
    """KL(q || prior) of each of G groups of latents: [B, G], or [K, B, G] where it depends on z.

    G is D where q and prior are `Independent`, otherwise 1, or what `conditional_kl` of q gives. A
    pair without a registered closed form gets log q(z) - log prior(z).
    """
    try:
        if isinstance(q, Independent) and isinstance(prior, Independent):
            return kl_divergence(q.base_dist, prior.base_dist)
        if isinstance(q, HasConditionalKL):
            return q.conditional_kl(prior, z)
        return kl_divergence(q, prior).unsqueeze(-1)
    except NotImplementedError:
        return (q.log_prob(z) - prior.log_prob(z)).unsqueeze(-1)
