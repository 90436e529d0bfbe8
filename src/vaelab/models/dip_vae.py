"""`DIPVAE`, the VAE with a penalty on the covariance of its codes."""

from typing import Any, Literal

from pydantic import NonNegativeFloat
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal

from vaelab.distributed import gather_batch
from vaelab.distributions.pairwise import is_factorised_normal
from vaelab.distributions.precision import without_autocast
from vaelab.errors import UserError
from vaelab.models.vae import VAE
from vaelab.terms import Terms


class DIPVAE(VAE):
    """DIP-VAE: a VAE whose code covariance is pulled to the identity (Kumar et al., 2018).

    "Disentangled inferred prior", arXiv:1711.00848, eq. 6 and 7.

    loss = distortion + rate + lambda_od * sum_(i != j) C_ij^2 + lambda_d * sum_i (C_ii - 1)^2

    with C the covariance over the batch, divided by B, of the posterior means (DIP-VAE-I) or of the
    codes, which adds the mean of the posterior covariances (DIP-VAE-II). A batch of one image, as
    may be left over in an evaluation, has no covariance and no penalty.

    Args:
        covariance: Whose covariance C is: of the `means` (I) or of the `codes` (II).
        off_diagonal: lambda_od, weight of the covariances, nats.
        diagonal: lambda_d, weight of the variances' distances from one, nats; in the paper
            10 lambda_od for I and lambda_od for II.

    Raises:
        UserError: In `objective`, for covariance=codes with a posterior that is not Gaussian.
    """

    off_diagonal: Tensor
    diagonal: Tensor
    min_images = 2

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
        """The loss of `VAE` plus weighted penalty on the covariance, []; may raise UserError."""
        return super().objective(terms) + self.penalty(terms.q)

    def penalty(self, q: Distribution) -> Tensor:
        """The weighted penalty [] on code covariance, of all processes in training; may raise.

        It is 0 for a batch of one image.

        Raises:
            UserError: If covariance=codes and q is not Gaussian.
        """
        means = gather_batch(q.mean)
        if len(means) == 1:
            return means.sum() * 0
        centred = means - means.mean(0)
        with without_autocast(means):
            covariance = centred.T @ centred / len(means)
            if self.covariance == "codes":
                # A mean over processes is one over images: the shares are equal in training.
                shares = gather_batch(mean_covariance(q).unsqueeze(0))
                covariance = covariance + shares.mean(0)
        variances = covariance.diagonal()
        covariances = covariance - variances.diag()
        return (
            self.off_diagonal * covariances.square().sum()
            + self.diagonal * (variances - 1).square().sum()
        )

    def extra_metrics(self, terms: Terms) -> dict[str, Tensor]:
        """The weighted penalty [], as `penalty`."""
        return {"penalty": self.penalty(terms.q)}


def mean_covariance(q: Distribution) -> Tensor:
    """The mean over the batch of a Gaussian q's covariances, [D, D]; UserError for any other q.

    Raises:
        UserError: If q is neither a MultivariateNormal nor factorised.
    """
    if isinstance(q, MultivariateNormal):
        return q.covariance_matrix.mean(0)
    if is_factorised_normal(q):
        return q.variance.mean(0).diag()
    raise UserError(
        "model.covariance=codes needs posterior=gaussian or full_gaussian; "
        "model.covariance=means does not"
    )
