from typing import Any

import torch
from pydantic import NonNegativeFloat
from torch import Tensor
from torch.distributions import Independent, Normal

from vaelab.distributed import whole
from vaelab.distributions.total_correlation import Estimator, Parts, check, decomposed
from vaelab.elbo import ELBO
from vaelab.errors import UserError
from vaelab.terms import Terms


class BetaTCVAE(ELBO):
    """Isolating sources of disentanglement in VAEs (Chen et al., 2018), arXiv:1802.04942, eq. 4.

    loss = distortion + alpha * mutual information + beta * total correlation
        + gamma * dimension-wise KL

    The three add up to the rate, so it is computed as distortion + rate + (alpha - 1) * mutual
    information + ...: of the same expectation, with the rate in closed form, and at
    alpha = beta = gamma = 1 the VAE. They are estimated on the batch, as
    `minibatch_total_correlation` and the like say: of q(z) a batch shows next to nothing if it is
    smaller than the exponential of the mutual information. N is the number of training images.

    Args:
        alpha: Weight of the mutual information of image and code.
        beta: Weight of the total correlation.
        gamma: Weight of the dimension-wise KL.
        estimator: Of q(z), see `vaelab.distributions.total_correlation.decomposed`.

    Raises:
        UserError: If posterior or prior do not factorise.
    """

    alpha: Tensor
    beta: Tensor
    gamma: Tensor
    compared = 2

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
            check(self.encode(x, y), self.latent_prior(y))
        self.num_images: int | None = None  # N, known once there are data

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self.num_images = self.trainer.datamodule.sizes["train"]  # type: ignore[attr-defined]

    def parts(self, terms: Terms) -> Parts:
        """The rate's parts over the whole batch, estimated."""
        if self.num_images is None:
            raise UserError("the number of training images is not known; set model.num_images")
        q, z = terms.q, whole(terms.z, dim=1)
        q = Independent(Normal(whole(q.mean), whole(q.stddev)), 1)
        return decomposed(q, terms.prior, z, self.estimator, self.num_images)

    def objective(self, terms: Terms) -> Tensor:
        parts = zip((self.alpha, self.beta, self.gamma), self.parts(terms), strict=True)
        change = sum((weight - 1) * part.mean() for weight, part in parts)
        return (terms.distortion + terms.rate).mean() + change

    def details(self, terms: Terms) -> dict[str, Tensor]:
        parts = self.parts(terms)._asdict()
        return {f"minibatch_{name}": part.mean(0) for name, part in parts.items()}
