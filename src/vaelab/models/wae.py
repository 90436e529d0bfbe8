"""`WAE`, the auto-encoder with an MMD between codes and prior."""

from typing import Annotated, Any

from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor

from vaelab.distributed import gather_batch
from vaelab.distributions.mmd import Kernel, squared_mmd
from vaelab.elbo import ELBO
from vaelab.errors import UserError
from vaelab.terms import Terms

Scales = Annotated[list[PositiveFloat], Field(min_length=1)]


class WAE(ELBO):
    """WAE-MMD: a Wasserstein auto-encoder without a rate (Tolstikhin et al., 2018), eq. 4.

    arXiv:1711.01558. loss = distortion + lambda * MMD^2(q(z), p(z)), by algorithm 2, between the
    codes of the batch and as many draws from the prior. With likelihood=gaussian
    model.likelihood.scale=0.7071 the distortion is the paper's cost, the squared error, plus a
    constant. The encoder is deterministic by default, as in the paper, so there is no bound, see
    `AE`; with posterior=gaussian there is one.

    Args:
        divergence_weight: lambda, nats.
        kernel: The kernel of the MMD, see `vaelab.distributions.mmd.kernel_values`.
        scales: Scales of the kernel, over which it is summed.

    Raises:
        UserError: In `objective`, if the prior has no reparameterised samples.
    """

    divergence_weight: Tensor
    min_images = 2

    def __init__(
        self, *, divergence_weight: NonNegativeFloat, kernel: Kernel, scales: Scales, **parts: Any
    ) -> None:
        super().__init__(**parts)
        self.add_weight("divergence_weight", divergence_weight)
        self.kernel: Kernel = kernel
        self.scales = scales

    def mmd_squared(self, terms: Terms) -> Tensor:
        """The MMD^2 [] of codes and fresh prior draws, mean over K; 0 for one image; may raise.

        An estimate without bias, which may be negative. In training over the batch of all
        processes.

        Raises:
            UserError: If the prior has no reparameterised samples.
        """
        prior = terms.prior.expand(terms.z.shape[1:2])
        if not prior.has_rsample:
            raise UserError(
                "the MMD needs draws from the prior with gradients, as prior=standard_normal, "
                "conditional_normal and flow give"
            )
        draws = self.draw(prior, len(terms.z))
        sets = gather_batch(terms.z, dim=1), gather_batch(draws, dim=1)
        return squared_mmd(*sets, self.kernel, self.scales).mean()

    def objective(self, terms: Terms) -> Tensor:
        """The mean distortion + lambda * MMD^2, []; may raise UserError, see `mmd_squared`."""
        return terms.distortion.mean() + self.divergence_weight * self.mmd_squared(terms)

    def extra_metrics(self, terms: Terms) -> dict[str, Tensor]:
        """The unweighted MMD^2 [], as `divergence`."""
        return {"divergence": self.mmd_squared(terms)}
