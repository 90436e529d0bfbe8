from typing import Annotated, Any

from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor

from vaelab.distributed import whole
from vaelab.distributions.mmd import Kernel, discrepancy
from vaelab.elbo import ELBO
from vaelab.errors import UserError
from vaelab.terms import Terms

Scales = Annotated[list[PositiveFloat], Field(min_length=1)]


class WAE(ELBO):
    """Wasserstein auto-encoder, WAE-MMD (Tolstikhin et al., 2018), arXiv:1711.01558, eq. 4.

    loss = distortion + lambda * MMD^2(q(z), p(z)), by algorithm 2, between the codes of the batch
    and as many draws from the prior. With likelihood=gaussian model.likelihood.scale=0.7071 the
    distortion is the paper's cost, the squared error, and a constant. The encoder is
    deterministic, as in the paper, so there is no bound, see `AE`; with
    posterior=gaussian there is.

    Args:
        divergence_weight: lambda, nats.
        kernel: Of the MMD, see `vaelab.distributions.mmd.kernel_values`.
        scales: Of the kernel, which is their sum.

    Raises:
        UserError: In training, if the prior gives no samples with gradients.
    """

    divergence_weight: Tensor
    compared = 2

    def __init__(
        self, *, divergence_weight: NonNegativeFloat, kernel: Kernel, scales: Scales, **parts: Any
    ) -> None:
        super().__init__(**parts)
        self.add_weight("divergence_weight", divergence_weight)
        self.kernel: Kernel = kernel
        self.scales = scales

    def divergence(self, terms: Terms) -> Tensor:
        """MMD^2 of the whole batch's codes and draws from the prior, averaged over K."""
        prior = terms.prior.expand(terms.z.shape[1:2])
        if not prior.has_rsample:
            raise UserError(
                "the MMD needs draws from the prior with gradients, as prior=standard_normal, "
                "conditional_normal and flow give"
            )
        draws = self.draw(prior, len(terms.z))
        sets = whole(terms.z, dim=1), whole(draws, dim=1)
        return discrepancy(*sets, self.kernel, self.scales).mean()

    def objective(self, terms: Terms) -> Tensor:
        return terms.distortion.mean() + self.divergence_weight * self.divergence(terms)

    def details(self, terms: Terms) -> dict[str, Tensor]:
        return {"divergence": self.divergence(terms)}
