"""`BetaTCVAE`, which weights the three parts of the rate separately."""

from typing import Any

import torch
from pydantic import NonNegativeFloat
from torch import Tensor
from torch.distributions import Independent, Normal

from vaelab.distributed import gather_batch
from vaelab.distributions.total_correlation import (
    Estimator,
    RateParts,
    check_factorised,
    decompose_rate,
)
from vaelab.elbo import ELBO
from vaelab.errors import UserError
from vaelab.terms import Terms


class BetaTCVAE(ELBO):
    """beta-TCVAE: three weights for the three parts of the rate (Chen et al., 2018), eq. 4.

    "Isolating sources of disentanglement in VAEs", arXiv:1802.04942.

    loss = distortion + alpha * mutual information + beta * total correlation
        + gamma * dimension-wise KL

    The three parts add up to the rate, so the loss is computed as distortion + rate +
    (alpha - 1) * mutual information + ...: it has the same expectation, uses the rate in closed
    form, and is exactly the VAE at alpha = beta = gamma = 1. The parts are estimated on the batch,
    hence the names `minibatch_total_correlation` and so on: a batch smaller than the exponential of
    the mutual information says next to nothing about q(z). N is the number of training images.

    Args:
        alpha: Weight of the mutual information of image and code.
        beta: Weight of the total correlation.
        gamma: Weight of the dimension-wise KL.
        estimator: The estimator of q(z), see `total_correlation.decompose_rate`.

    Raises:
        UserError: If the posterior or the prior does not factorise over latents.
    """

    alpha: Tensor
    beta: Tensor
    gamma: Tensor
    min_images = 2

    def __init__(
        self,
        *,
        alpha: NonNegativeFloat,
        beta: NonNegativeFloat,
        gamma: NonNegativeFloat,
        estimator: Estimator,
        **parts: Any,
    ) -> None:
        super().__init__(**parts)
        self.add_weight("beta", beta)
        self.add_weight("alpha", alpha)
        self.add_weight("gamma", gamma)
        self.estimator: Estimator = estimator
        x, y = torch.zeros(1, *self.x_shape), torch.zeros(1, self.y_dim)
        with torch.no_grad():
            check_factorised(self.latent_posterior(x, y), self.latent_prior(y))
        self.num_images: int | None = None  # N, set by `setup`

    def setup(self, stage: str) -> None:
        """Called by Lightning before fit, val and test: also sets N, if there is a data module."""
        super().setup(stage)
        data = getattr(self.trainer, "datamodule", None)
        if data is not None:
            self.num_images = data.sizes["train"]

    def rate_parts(self, terms: Terms) -> RateParts:
        """Estimates of the rate's parts, [K, B] each, of all processes in training; may raise.

        Raises:
            UserError: If N is not known, as outside a training.
        """
        if self.num_images is None:
            raise UserError(
                "the number of training images is not known outside a training; set the attribute "
                "num_images of this model"
            )
        q, z = terms.q, gather_batch(terms.z, dim=1)
        q = Independent(Normal(gather_batch(q.mean), gather_batch(q.stddev)), 1)
        return decompose_rate(q, terms.prior, z, self.estimator, self.num_images)

    def objective(self, terms: Terms) -> Tensor:
        """The mean [] of distortion + rate + sum of (weight - 1) * part over the rate's parts."""
        parts = zip((self.alpha, self.beta, self.gamma), self.rate_parts(terms), strict=True)
        change = sum((weight - 1) * part.mean() for weight, part in parts)
        return (terms.distortion + terms.rate).mean() + change

    def extra_metrics(self, terms: Terms) -> dict[str, Tensor]:
        """Estimates of the three parts of the rate, [B] each, as `minibatch_<part>`."""
        parts = self.rate_parts(terms)._asdict()
        return {f"minibatch_{name}": part.mean(0) for name, part in parts.items()}
