"""A posterior that is certain: one code at each of N positions, out of a learned codebook.

Shapes: B images, D latents, N positions, M codes of W latents each; D = N W.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.distributions import Distribution, constraints, register_kl

from vaelab.distributions.precision import full_precision, undiminished
from vaelab.errors import UserError


class PointMass(Distribution):
    """All mass on the codes nearest to what the encoder gives; z is their vectors, side by side.

    The gradient of z passes straight through to the encoder (van den Oord et al., 2017, section
    3.2): to `encoded`, and not to the codebook.

    Args:
        nearest: From z [..., D] to codes [..., N].
        encoded: What the encoder gives, [B, D].
        codes: The nearest ones, [B, N].
        quantized: Their vectors, [B, D], with gradients to the codebook.
    """

    arg_constraints: ClassVar = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        nearest: Callable[[Tensor], Tensor],
        encoded: Tensor,
        codes: Tensor,
        quantized: Tensor,
    ) -> None:
        self.nearest, self.encoded, self.codes, self.quantized = nearest, encoded, codes, quantized
        super().__init__(encoded.shape[:-1], encoded.shape[-1:])

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "PointMass":
        parts = (self.encoded, self.codes, self.quantized)
        return PointMass(self.nearest, *(part.expand(*batch_shape, -1) for part in parts))

    @property
    def mean(self) -> Tensor:
        # In this order the value is that of the codes to the last bit.
        return self.quantized.detach() + (self.encoded - self.encoded.detach())

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.mean.expand(*sample_shape, *self.mean.shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log of the mass, zero or minus infinity, on the codes that z [..., D] is of."""
        same = (self.nearest(value) == self.codes).all(-1)
        return torch.where(same, 0.0, -torch.inf).to(self.encoded.dtype)


@register_kl(PointMass, Distribution)
def kl_of_codes(q: PointMass, prior: Distribution) -> Tensor:
    """-log p(codes), for a prior that has codes."""
    if not hasattr(prior, "log_mass"):
        raise UserError("posterior=codebook is that of model=vq_vae, and takes prior=codes")
    return -prior.log_mass(q.codes)


class Codebook(nn.Module):
    """The nearest codes to a linear map of the features.

    The paper's positions are pixels of a small image; here they have no place in the image, so that
    any network will do.

    Args:
        codes: M, in one codebook for all positions.
        width: W, which divides D.

    Raises:
        UserError: If the width does not divide D.
    """

    def __init__(
        self,
        features: int,
        latent_dim: int,
        *,
        codes: PositiveInt,
        width: PositiveInt,
    ) -> None:
        super().__init__()
        if latent_dim % width:
            raise UserError(
                f"model.posterior.width={width} does not divide the {latent_dim} latents"
            )
        self.codes, self.width, self.positions = codes, width, latent_dim // width
        self.params = nn.Linear(features, latent_dim)
        self.vectors = nn.Parameter(torch.randn(codes, width))

    def forward(self, h: Tensor) -> PointMass:
        encoded = full_precision(self.params(h))
        codes = self.nearest(encoded)
        return PointMass(self.nearest, encoded, codes, self.embedded(codes))

    @torch.no_grad()
    def nearest(self, z: Tensor) -> Tensor:
        """The code of each position of z [..., D], [..., N]."""
        with undiminished(z):
            positions = z.unflatten(-1, (self.positions, self.width))
            squares = self.vectors.square().sum(-1) - 2 * positions @ self.vectors.T
            return squares.argmin(-1)

    def embedded(self, codes: Tensor) -> Tensor:
        """The vectors of codes [..., N], side by side: [..., D]."""
        return self.vectors[codes].flatten(-2)
