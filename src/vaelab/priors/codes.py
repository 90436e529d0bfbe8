"""A prior over discrete codes.

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
"""Temperature at which the likeliest code is drawn, and nothing overflows."""


class Codes(nn.Module):
    """p(c_1 | y) p(c_2 | c_1, y) ... p(c_N | c_1, ..., c_(N-1), y), uniform at the start.

    One masked network over one-hot codes gives all factors in one pass (MADE, Germain et al., 2015,
    arXiv:1502.03509, section 4); drawing takes N. Of z it tells the codes by their vectors.

    Args:
        hidden: Widths of the network's layers.

    Raises:
        UserError: If the model's posterior has no codebook.
    """

    def __init__(self, latent_dim: int, context_dim: int, *, hidden: list[PositiveInt]) -> None:
        super().__init__()
        self.latent_dim, self.context_dim, self.hidden = latent_dim, context_dim, hidden

    def connect(self, model: Any) -> None:
        """Takes the model's codebook, which is no part of this."""
        if model.continuous:
            raise UserError("prior=codes is that of model=vq_vae")
        if not isinstance(model.posterior, Codebook):
            raise UserError("model=vq_vae takes posterior=codebook")
        codebook = model.posterior
        self.embedded, self.nearest = codebook.embedded, codebook.nearest
        self.codes, self.positions = codebook.codes, codebook.positions
        # Inputs are of a position, the context before all; a unit of one sees those before it.
        of_code = torch.arange(self.positions).repeat_interleave(self.codes)
        inputs = torch.cat([torch.full((self.context_dim,), -1), of_code])
        units = [torch.arange(width) % self.positions for width in self.hidden]
        first, *others = pairwise([inputs, *units, of_code])
        masks = [first[1][:, None] > first[0]] + [after[:, None] >= to for to, after in others]
        layers = [Masked(mask) for mask in masks]
        for parameter in layers[-1].parameters():
            nn.init.zeros_(parameter)
        self.layers = nn.ModuleList(layers)

    def forward(self, y: Tensor) -> Distribution:
        return CodeSequence(self, y if self.context_dim else y.new_zeros(0))

    def logits(self, codes: Tensor, y: Tensor) -> Tensor:
        """Those of every position given the ones before it, [..., N, M].

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


class Masked(nn.Linear):
    """A dense layer without the connections where `mask` [O, I] is false."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, h: Tensor) -> Tensor:
        return linear(h, self.weight * self.mask, self.bias)


class CodeSequence(Distribution):
    """p(codes | y), over the vectors z of the codes.

    Args:
        prior: Gives the logits, and the vectors of codes.
        y: The context [B, C], or [0] where C = 0 and it is the same for all.
        temperature: By which logits are divided where codes are drawn; at zero the likeliest
            code is taken at each position.
    """

    arg_constraints: ClassVar = {}
    support = constraints.real_vector

    def __init__(self, prior: Codes, y: Tensor, temperature: float = 1.0) -> None:
        self.prior, self.y, self.temperature = prior, y, temperature
        super().__init__(y.shape[:-1], torch.Size([prior.latent_dim]))

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "CodeSequence":
        return CodeSequence(self.prior, self.y.expand(*batch_shape, -1), self.temperature)

    def tempered(self, temperature: float) -> "CodeSequence":
        """The same at another temperature."""
        return CodeSequence(self.prior, self.y, temperature)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = (*sample_shape, *self.batch_shape, self.prior.positions)
        codes = torch.zeros(shape, dtype=torch.long, device=self.y.device)
        for position in range(self.prior.positions):
            logits = self.prior.logits(codes, self.y)[..., position, :]
            logits = logits / max(self.temperature, COLDEST)
            codes[..., position] = Categorical(logits=logits).sample()
        return self.prior.embedded(codes)

    def log_mass(self, codes: Tensor) -> Tensor:
        """The log p(codes | y) of codes [..., N], in nats."""
        log_masses = self.prior.logits(codes, self.y).log_softmax(-1)
        return log_masses.gather(-1, codes.unsqueeze(-1).expand(*log_masses.shape[:-1], 1)).sum(
            (-2, -1)
        )

    def log_prob(self, value: Tensor) -> Tensor:
        """The log p(codes | y) of the codes that z [..., D] is of."""
        return self.log_mass(self.prior.nearest(value))
