"""`Codes`, the autoregressive prior of the discrete codes of a VQ-VAE.

Shapes: B labels, C width of the context, D latents, N positions, M codes.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, constraints
from torch.nn.functional import linear, silu

from vaelab.distributions.precision import full_precision
from vaelab.errors import UserError
from vaelab.posteriors import Codebook

COLDEST = 1e-6
"""Least temperature to draw at: the likeliest code is drawn, and no logit overflows."""


class Codes(nn.Module):
    """The prior p(c_1 | y) p(c_2 | c_1, y) ... p(c_N | c_1, ..., c_(N-1), y) of N codes.

    It is uniform at the start. One masked network over one-hot codes gives all factors in one pass
    (MADE, Germain et al., 2015, arXiv:1502.03509, section 4); drawing takes N passes. The codes of
    a z are those nearest to it in the model's codebook.

    Args:
        hidden: Widths of the network's hidden layers.

    Raises:
        UserError: From `connect`, if the model's posterior has no codebook.
    """

    def __init__(self, latent_dim: int, context_dim: int, *, hidden: list[PositiveInt]) -> None:
        super().__init__()
        self.latent_dim, self.context_dim, self.hidden = latent_dim, context_dim, hidden

    def connect(self, model: Any) -> None:
        """Keeps the codebook of the model's posterior and makes the layers; may raise UserError.

        Called by the constructor of `AutoEncoder`. The codebook does not become a part of this
        module. Raises UserError if the model is not `vq_vae` with `posterior=codebook`.
        """
        if model.has_continuous_latents:
            raise UserError("prior=codes is that of model=vq_vae")
        if not isinstance(model.posterior, Codebook):
            raise UserError("model=vq_vae takes posterior=codebook")
        codebook = model.posterior
        self.code_vectors, self.nearest_codes = codebook.code_vectors, codebook.nearest_codes
        self.codes, self.positions = codebook.codes, codebook.positions
        # Every unit has a position and sees inputs before it only. The context has position -1.
        of_code = torch.arange(self.positions).repeat_interleave(self.codes)
        inputs = torch.cat([torch.full((self.context_dim,), -1), of_code])
        units = [torch.arange(width) % self.positions for width in self.hidden]
        first, *others = pairwise([inputs, *units, of_code])
        masks = [first[1][:, None] > first[0]] + [after[:, None] >= to for to, after in others]
        layers = [MaskedLinear(mask) for mask in masks]
        for parameter in layers[-1].parameters():
            nn.init.zeros_(parameter)
        self.layers = nn.ModuleList(layers)

    def forward(self, y: Tensor) -> Distribution:
        """Returns p(z | y) of a context y [B, C]: batch [B], or [] where C = 0."""
        return CodeSequence(self, y if self.context_dim else y.new_zeros(0))

    def logits(self, codes: Tensor, y: Tensor) -> Tensor:
        """Returns the logits [..., N, M] of each position, given the codes before it and y.

        Args:
            codes: [..., N].
            y: The context, [..., C].
        """
        one_hot = codes[..., None] == torch.arange(self.codes, device=codes.device)
        inputs = one_hot.flatten(-2).to(y)
        shape = torch.broadcast_shapes(inputs.shape[:-1], y.shape[:-1])
        h = torch.cat([part.expand(*shape, -1) for part in (y, inputs)], -1)
        *hidden, last = self.layers
        for layer in hidden:
            h = silu(layer(h))
        return full_precision(last(h)).unflatten(-1, (-1, self.codes))


class MaskedLinear(nn.Linear):
    """A dense layer without the connections where `mask` [O, I] is false."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, h: Tensor) -> Tensor:
        """Returns the output [..., O] of h [..., I] with masked weights as zeros."""
        return linear(h, self.weight * self.mask, self.bias)


class CodeSequence(Distribution):
    """The distribution p(codes | y), over z [D], the concatenated vectors of the codes.

    Args:
        prior: Gives the logits and the vectors of codes.
        y: The context [B, C], or [0] where C = 0 and it is the same for all.
        temperature: Divides the logits when codes are drawn; at zero the likeliest code is drawn
            at each position. Log-masses do not use it.
    """

    arg_constraints: ClassVar = {}
    support = constraints.real_vector

    def __init__(self, prior: Codes, y: Tensor, temperature: float = 1.0) -> None:
        self.prior, self.y, self.temperature = prior, y, temperature
        super().__init__(y.shape[:-1], torch.Size([prior.latent_dim]))

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "CodeSequence":
        """Returns the distribution with y expanded to `batch_shape`; the prior is shared."""
        return CodeSequence(self.prior, self.y.expand(*batch_shape, -1), self.temperature)

    def with_temperature(self, temperature: float) -> "CodeSequence":
        """Returns a copy that draws at another temperature; its log-masses are the same."""
        return CodeSequence(self.prior, self.y, temperature)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws z [*sample_shape, ..., D] in N passes, at its temperature, without gradients."""
        shape = (*sample_shape, *self.batch_shape, self.prior.positions)
        codes = torch.zeros(shape, dtype=torch.long, device=self.y.device)
        for position in range(self.prior.positions):
            logits = self.prior.logits(codes, self.y)[..., position, :]
            logits = logits / max(self.temperature, COLDEST)
            codes[..., position] = Categorical(logits=logits).sample()
        return self.prior.code_vectors(codes)

    def log_mass(self, codes: Tensor) -> Tensor:
        """Returns log p(codes | y) [...] of codes [..., N], in nats, at temperature 1."""
        log_masses = self.prior.logits(codes, self.y).log_softmax(-1)
        return log_masses.gather(-1, codes.unsqueeze(-1).expand(*log_masses.shape[:-1], 1)).sum(
            (-2, -1)
        )

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log p(codes | y) [...] of the codes nearest to z [..., D], at temperature 1."""
        return self.log_mass(self.prior.nearest_codes(value))
