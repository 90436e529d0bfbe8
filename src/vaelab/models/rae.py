"""`RAE`, the auto-encoder with penalties on its codes and its decoder."""

from typing import Any, Literal

import torch
from pydantic import NonNegativeFloat
from torch import Tensor
from torch.distributions import Normal

from vaelab.models.ae import AE
from vaelab.terms import Terms


class RAE(AE):
    """RAE: an auto-encoder with penalties on codes and decoder (Ghosh et al., 2020), section 3.

    arXiv:1903.12436. loss = distortion + beta * |z|^2 / 2 + lambda * regulariser; the paper's
    distortion is that of likelihood=gaussian. For rate, ELBO and samples see `AE`.

    Args:
        code_weight: beta, weight of half the code's squared length, nats.
        decoder_weight: lambda, weight of the regulariser, nats.
        regulariser: The penalty on the decoder. `weights`: the sum of its squared weights and
            biases (RAE-L2). `gradient`: the squared Frobenius norm of the Jacobian of the decoded
            mean image by z, averaged over images, estimated without bias by one random direction
            (RAE-GP). It is not in val/loss, since an evaluation computes no gradients. `none`: no
            penalty.
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
        """The mean distortion plus penalties, []; regulariser=gradient is skipped in evaluation."""
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
        """True unless regulariser=gradient, which calls autograd."""
        return self.regulariser != "gradient"

    def squared_jacobian(self, terms: Terms) -> Tensor:
        """Hutchinson's estimate of |J|^2 with J = dE[x | z] / dz, [K, B]: |v' J|^2, v ~ N(0, I)."""
        images = terms.p.mean
        noise = self.draw(Normal(torch.zeros_like(images[0]), 1.0), len(images))
        (product,) = torch.autograd.grad(images, terms.z, noise, create_graph=True)
        return product.square().sum(-1)
