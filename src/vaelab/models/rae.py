from typing import Any, Literal

import torch
from pydantic import NonNegativeFloat
from torch import Tensor
from torch.distributions import Normal

from vaelab.models.ae import AE
from vaelab.terms import Terms


class RAE(AE):
    """Regularised auto-encoder (Ghosh et al., 2020), arXiv:1903.12436, section 3.

    loss = distortion + beta * |z|^2 / 2 + lambda * regulariser, with likelihood=gaussian the
    paper's. As to rate, ELBO and samples see `AE`.

    Args:
        code_weight: beta, weight of half the code's squared length, nats.
        decoder_weight: lambda, weight of the regulariser, nats.
        regulariser: Of the decoder. `weights`: the sum of its squared weights and biases (RAE-L2).
            `gradient`: the squared Frobenius norm of the Jacobian of the decoded mean image by z,
            averaged over images, estimated without bias by one random direction (RAE-GP); in
            training steps alone, for an evaluation computes no gradients, so val/loss is without
            it. `none`.
    """

    code_weight: Tensor
    decoder_weight: Tensor

    def __init__(
        self,
        *,
        code_weight: NonNegativeFloat,
        decoder_weight: NonNegativeFloat,
        regulariser: Literal["weights", "gradient", "none"],
        **parts: Any,
    ) -> None:
        super().__init__(**parts)
        self.add_weight("code_weight", code_weight)
        self.add_weight("decoder_weight", decoder_weight)
        self.regulariser = regulariser

    def objective(self, terms: Terms) -> Tensor:
        code = 0.5 * terms.z.square().sum(-1).mean()
        loss = super().objective(terms) + self.code_weight * code
        if self.regulariser == "weights":
            squares = [parameter.square().sum() for parameter in self.decoder.parameters()]
            loss = loss + self.decoder_weight * torch.stack(squares).sum()
        if self.regulariser == "gradient" and terms.z.requires_grad:
            loss = loss + self.decoder_weight * self.squared_jacobian(terms).mean()
        return loss

    @property
    def can_compile(self) -> bool:
        return self.regulariser != "gradient"

    def squared_jacobian(self, terms: Terms) -> Tensor:
        """Hutchinson's estimate of |dE[x|z] / dz|^2, [K, B]: |v' J|^2 for v ~ N(0, I)."""
        images = terms.p.mean
        noise = self.draw(Normal(torch.zeros_like(images[0]), 1.0), len(images))
        (product,) = torch.autograd.grad(images, terms.z, noise, create_graph=True)
        return product.square().sum(-1)
