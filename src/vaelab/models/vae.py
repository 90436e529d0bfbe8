from typing import Any

from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from vaelab.distributed import whole
from vaelab.elbo import ELBO
from vaelab.errors import UserError
from vaelab.terms import Terms


class VAE(ELBO):
    """Auto-encoding variational Bayes (Kingma & Welling, 2014), arXiv:1312.6114, eq. 10.

    loss = distortion + beta * rate, with beta one but for annealing. With a condition it is the
    conditional VAE of Sohn et al. (2015), eq. 4: the same bound with y on every side.

    With free bits (Kingma et al., 2016), arXiv:1606.04934, eq. 15, the rate in the loss is
    sum_g max(free_bits, mean over the batch of the rate of group g): a group that costs less is
    not pressed to cost nothing.

    Args:
        free_bits: Nats of each group, averaged over the batch, that are free. None are by itself.
        free_bits_group: Latents in a group, one after the other. Where the rate does not split over
            latents, as that of a flow, all of them are one group.
    """

    beta: Tensor

    def __init__(
        self, *, free_bits: NonNegativeFloat = 0.0, free_bits_group: PositiveInt = 1, **parts: Any
    ) -> None:
        super().__init__(**parts)
        self.add_weight("beta", 1.0)
        self.free_bits, self.free_bits_group = free_bits, free_bits_group
        if free_bits and self.latent_dim % free_bits_group:
            raise UserError(
                f"model.free_bits_group={free_bits_group} does not divide the {self.latent_dim} "
                "latents"
            )

    def objective(self, terms: Terms) -> Tensor:
        if not self.free_bits:
            return (terms.distortion + self.beta * terms.rate).mean()
        return terms.distortion.mean() + self.beta * self.rate_beyond_free(terms)

    def rate_beyond_free(self, terms: Terms) -> Tensor:
        """The mean rate over the batch, []; that of a group is `free_bits` at least."""
        rate = terms.rate_per_latent
        if rate.shape[1] < self.latent_dim != self.free_bits_group:
            raise UserError(
                f"model.free_bits={self.free_bits:g}: the rate of this posterior and prior does "
                "not split over latents; make them one group, "
                f"model.free_bits_group={self.latent_dim}"
            )
        size = min(self.free_bits_group, rate.shape[1])
        groups = rate.mean(0).unflatten(0, (-1, size)).sum(1)
        if self.training:
            groups = whole(groups[None]).mean(0)
        return groups.clamp(min=self.free_bits).sum()
