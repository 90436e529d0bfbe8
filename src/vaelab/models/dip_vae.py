from typing import Any, Literal

from pydantic import NonNegativeFloat
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal

from vaelab.distributed import whole
from vaelab.distributions.pairwise import is_factorised
from vaelab.distributions.precision import undiminished
from vaelab.errors import UserError
from vaelab.models.vae import VAE
from vaelab.terms import Terms


class DIPVAE(VAE):
    """Disentangled inferred prior VAE (Kumar et al., 2018), arXiv:1711.00848, eq. 6 and 7.

    loss = distortion + rate + lambda_od * sum_(i != j) C_ij^2 + lambda_d * sum_i (C_ii - 1)^2

    with C the covariance over the batch, divided by B, of the posterior means (DIP-VAE-I) or of the
    codes, which adds the mean of the posterior covariances (DIP-VAE-II). One image has no
    covariance, so that the last one of an evaluation, left over from full batches, adds no penalty.

    Args:
        covariance: Of which: `means`, I, or `codes`, II.
        off_diagonal: lambda_od, weight of the covariances, nats.
        diagonal: lambda_d, weight of the variances' distances from one, nats; in the paper
            10 lambda_od for I and lambda_od for II.

    Raises:
        UserError: In training, for the codes of a posterior that is not Gaussian.
    """

    off_diagonal: Tensor
    diagonal: Tensor
    compared = 2

    def __init__(
        self,
        *,
        covariance: Literal["means", "codes"],
        off_diagonal: NonNegativeFloat,
        diagonal: NonNegativeFloat,
        **parts: Any,
    ) -> None:
        super().__init__(**parts)
        self.covariance = covariance
        self.add_weight("off_diagonal", off_diagonal)
        self.add_weight("diagonal", diagonal)

    def objective(self, terms: Terms) -> Tensor:
        return super().objective(terms) + self.penalty(terms.q)

    def penalty(self, q: Distribution) -> Tensor:
        means = whole(q.mean)
        if len(means) == 1:
            return means.sum() * 0
        centred = means - means.mean(0)
        with undiminished(means):
            covariance = centred.T @ centred / len(means)
            if self.covariance == "codes":
                # The mean over processes, which have equal shares of the batch.
                shares = whole(mean_covariance(q).unsqueeze(0))
                covariance = covariance + shares.mean(0)
        variances = covariance.diagonal()
        covariances = covariance - variances.diag()
        return (
            self.off_diagonal * covariances.square().sum()
            + self.diagonal * (variances - 1).square().sum()
        )

    def details(self, terms: Terms) -> dict[str, Tensor]:
        return {"penalty": self.penalty(terms.q)}


def mean_covariance(q: Distribution) -> Tensor:
    """The mean over the batch of a Gaussian's covariances, [D, D]."""
    if isinstance(q, MultivariateNormal):
        return q.covariance_matrix.mean(0)
    if is_factorised(q):
        return q.variance.mean(0).diag()
    raise UserError(
        "model.covariance=codes needs posterior=gaussian or full_gaussian; "
        "model.covariance=means does not"
    )
