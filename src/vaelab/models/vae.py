"""`VAE`, the negative ELBO as loss, optionally with free bits."""

from typing import Any

from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from vaelab.distributed import gather_batch
from vaelab.elbo import ELBO
from vaelab.errors import UserError
from vaelab.terms import Terms, weighted


class VAE(ELBO):
    """The VAE (Kingma & Welling, 2014), arXiv:1312.6114, eq. 10, optionally with free bits.

    loss = distortion + beta * rate, with beta = 1 unless annealed. With a condition it is the
    conditional VAE of Sohn et al. (2015), eq. 4: the same bound, with y given to encoder, prior
    and decoder.

    With free bits (Kingma et al., 2016), arXiv:1606.04934, eq. 15, the rate in the loss is
    sum_g max(free_bits, mean over the batch of the rate of group g): a group below its free bits
    gets no gradient from the rate.

    Args:
        free_bits: Free bits per group in nats, of the batch mean (default 0: off).
        free_bits_group: The number of consecutive latents in a group (default 1). Must be D where
            the rate does not split over latents, as that of a flow.

    Raises:
        UserError: If the group size does not divide D; in `objective`, if the rate does not split.
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
        """The mean distortion + beta * rate, [], with free bits if on; may raise UserError."""
        if not self.free_bits:
            return (terms.distortion + weighted(self.beta, terms.rate)).mean()
        return terms.distortion.mean() + weighted(self.beta, self.rate_with_free_bits(terms))

    def rate_with_free_bits(self, terms: Terms) -> Tensor:
        """The mean rate [], each group counting at least `free_bits` nats; may raise UserError.

        In training the mean is over the batch of all processes.

        Raises:
            UserError: If the rate does not split over latents, and D are not one group.
        """
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
            groups = gather_batch(groups[None]).mean(0)
        return groups.clamp(min=self.free_bits).sum()
