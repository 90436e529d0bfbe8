"""`Codebook`, the posterior of a VQ-VAE: the nearest code of a learned codebook at N positions.

Shapes: B images, D latents, N positions, M codes of W latents each; D = N W.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.distributions import Distribution, constraints, register_kl

from vaelab.distributions.precision import full_precision, without_autocast
from vaelab.errors import UserError
from vaelab.parts import HasLogMass


class PointMass(Distribution):
    """All probability mass on the codes nearest to the encoder's output; z is their vectors.

    The vectors of the N positions are concatenated. The gradient of z passes straight through to
    `encoded`, and not to the codebook (van den Oord et al., 2017, section 3.2).

    Args:
        nearest_codes: From z [..., D] to codes [..., N].
        encoded: The output of the encoder, [B, D].
        codes: The nearest codes, [B, N].
        quantized: Their vectors, [B, D], with gradients to the codebook.
    """

    arg_constraints: ClassVar = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        nearest_codes: Callable[[Tensor], Tensor],
        encoded: Tensor,
        codes: Tensor,
        quantized: Tensor,
    ) -> None:
        self.nearest_codes, self.encoded, self.codes, self.quantized = (
            nearest_codes,
            encoded,
            codes,
            quantized,
        )
        super().__init__(encoded.shape[:-1], encoded.shape[-1:])

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "PointMass":
        """Returns the distribution with all its tensors expanded to `batch_shape`."""
        parts = (self.encoded, self.codes, self.quantized)
        return PointMass(self.nearest_codes, *(part.expand(*batch_shape, -1) for part in parts))

    @property
    def mean(self) -> Tensor:
        """The vectors of the codes [B, D], with straight-through gradients to `encoded` only."""
        # Added in this order, the value equals the codes' vectors to the last bit.
        return self.quantized.detach() + (self.encoded - self.encoded.detach())

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Returns the mean expanded to [*sample_shape, B, D]; draws nothing."""
        return self.mean.expand(*sample_shape, *self.mean.shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log-mass [...] at z [..., D]: 0 if its nearest codes are `codes`, else -inf."""
        same = (self.nearest_codes(value) == self.codes).all(-1)
        return torch.where(same, 0.0, -torch.inf).to(self.encoded.dtype)


@register_kl(PointMass, Distribution)
def kl_point_mass(q: PointMass, prior: Distribution) -> Tensor:
    """Returns KL = -log p(codes) [B]; raises UserError if the prior has no `log_mass`.

    Called by `kl_divergence`. The prior's `log_mass` takes codes [B, N], see `CodeSequence`.
    """
    if not isinstance(prior, HasLogMass):
        raise UserError("posterior=codebook is that of model=vq_vae, and takes prior=codes")
    return -prior.log_mass(q.codes)


class Codebook(nn.Module):
    """The posterior that maps features linearly to D latents and quantises them to nearest codes.

    In the paper the positions are pixels of a small feature map. Here they are groups of W latents,
    so that any network will do.

    Args:
        codes: M, the size of the codebook, which all positions share.
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
        """Returns the `PointMass`, batch [B] and event [D], of features h [B, F]."""
        encoded = full_precision(self.params(h))
        codes = self.nearest_codes(encoded)
        return PointMass(self.nearest_codes, encoded, codes, self.code_vectors(codes))

    @torch.no_grad()
    def nearest_codes(self, z: Tensor) -> Tensor:
        """Returns the nearest code at each position of z [..., D]: [..., N], without gradients."""
        with without_autocast(z):
            positions = z.unflatten(-1, (self.positions, self.width))
            # By differences: |v|^2 - 2 z v in single precision does not tell near codes apart, and
            # a vector of the codebook would be that of another code.
            distances = torch.cdist(
                positions,
                self.vectors.expand(*positions.shape[:-2], -1, -1),
                compute_mode="donot_use_mm_for_euclid_dist",
            )
            return distances.argmin(-1)

    def code_vectors(self, codes: Tensor) -> Tensor:
        """Returns the vectors of codes [..., N], concatenated: [..., D], with gradients."""
        return self.vectors[codes].flatten(-2)
