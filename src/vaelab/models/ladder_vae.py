from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal
from torch.nn.functional import logsigmoid, softplus

from vaelab.distributions.hierarchy import Hierarchy
from vaelab.distributions.precision import full_precision
from vaelab.models.vae import VAE
from vaelab.networks.layers import concatenate, dense
from vaelab.parts import TrainingImages
from vaelab.priors import UnitNormal

HEARD = 8.0
"""Factor of a fresh m_l, which then varies with v_(l+1) about as much as v_l around it: where it
varies less, the decoder never hears of the levels above, and they fall silent."""
LEAST = 0.1
"""Standard deviation of a feature, of the mean over features, that counts as variation."""
LOW = -15.0
"""Where a softplus is an exponential to the last bit."""


class LadderVAE(VAE):
    """Ladder VAE (Sonderby et al., 2016), arXiv:1602.02282, eq. 1 to 3 and section 2.2.

    L levels of latents v_l, of which the decoder sees v_1. Going down, for p and q alike,
    p(v_l | v_(l+1), y) = N(m_l, s_l^2) with m_l and log s_l a network of v_(l+1). Going up, without
    noise, d_1 is the encoder's features, d_(l+1) a layer over d_l, and N(a_l, b_l^2), linear
    in d_l, what the image says of level l. q(v_l | v_(l+1), x, y) is both together, weighed by
    their precisions 1 / s_l^2 and 1 / b_l^2. At the top, p(v_L | y) and q(v_L | x, y) are the
    configuration's prior and posterior. The rate is the sum over levels, each in closed form given
    the v_(l+1) drawn from q, of KL(q(v_l | v_(l+1), x, y) || p(v_l | v_(l+1), y)).

    The model's z are these latents in units of what is expected of them: v_L = z_L and
    v_l = m_l + s_l z_l. That changes neither p(x) nor the rate, and below the top z is N(0, I)
    under p. A change of one z_l takes the levels below along.

    The paper's batch normalisation makes an image's bound depend on the other images of its batch;
    instead, d_l is standardised where b_l is read from it, by the first batch of a fresh training
    (as Salimans & Kingma, 2016, arXiv:1602.07868, section 3). b_l^2 is a softplus as in the
    paper, and s_l an exponential. Warm-up is `annealing=linear`. With no level above the first
    it is `VAE`.

    Args:
        latent_dim: Latents of v_1. D counts those of all levels, the top one first.
        above: Latents of v_2, v_3, and so on up.
        hidden: Width of the layers between levels, both up and down.
    """

    def __init__(
        self,
        *,
        latent_dim: PositiveInt,
        above: list[PositiveInt],
        hidden: PositiveInt,
        posterior: Callable[..., nn.Module],
        prior: Callable[..., Any],
        decoder: Callable[..., nn.Module],
        **parts: Any,
    ) -> None:
        widths = [*above[::-1], latent_dim]
        super().__init__(
            latent_dim=sum(widths),
            posterior=lambda features, _: posterior(hidden if above else features, widths[0]),
            prior=lambda _, context_dim: prior(widths[0], context_dim),
            decoder=lambda _, *shapes: decoder(latent_dim, *shapes),
            **parts,
        )
        if hasattr(self.prior, "connect"):
            self.prior.encode = self.encode_top  # of whose latents it is the prior
        self.widths = widths
        features: Any = self.encoder.features
        heights = [(features, latent_dim), *((hidden, width) for width in above)][: len(above)]
        self.up = nn.ModuleList(dense(n, [hidden], self.context_dim) for n, _ in heights)
        self.evidence = nn.ModuleList(Evidence(n, width) for n, width in heights)
        self.down = nn.ModuleList(
            Expectation(upper, lower, hidden, self.context_dim) for upper, lower in pairwise(widths)
        )

    @torch.no_grad()
    def initialise(self, data: TrainingImages) -> None:
        """Standardises what each level is told from, over the first training batch."""
        batches = data.batches("train")
        batches.rank, batches.world_size = 0, 1  # all of it, in every process
        x, y = (part.to(self.device) for part in next(iter(batches)))
        context = self.context(y)
        h = self.encoder(x, context)
        levels: Any = zip(self.up, self.evidence, strict=True)
        for up, told in levels:
            told.standardise(h)
            h = up(concatenate(h, context), context)

    def latent_prior(self, y: Tensor) -> Distribution:
        steps = [partial(unit_normal, width) for width in self.widths[1:]]
        return Hierarchy(super().latent_prior(y), steps, self.widths)

    def encode(self, x: Tensor, y: Tensor) -> Distribution:
        context = self.context(y)
        top, evidence = self.ascend(x, context)
        levels = zip(self.down, reversed(evidence), strict=True)
        steps = [partial(combined, partial(down, y=context), *told) for down, told in levels]
        return Hierarchy(top, steps, self.widths)

    def encode_top(self, x: Tensor, y: Tensor) -> Distribution:
        """q(v_L | x, y), batch [B]."""
        return self.ascend(x, self.context(y))[0]

    def ascend(self, x: Tensor, context: Tensor) -> tuple[Distribution, list[tuple[Tensor, ...]]]:
        """q(v_L | x, y), and a_l and log b_l of every level below it, from the first one up."""
        h, evidence = self.encoder(x, context), []
        for up, told in zip(self.up, self.evidence, strict=True):
            evidence.append(told(h))
            h = up(concatenate(h, context), context)
        return self.posterior(h), evidence

    def decode(self, z: Tensor, y: Tensor) -> Distribution:
        return super().decode(self.levels(z, y)[-1], y)

    def levels(self, z: Tensor, y: Tensor) -> list[Tensor]:
        """The paper's latents v_L, ..., v_1 of z [..., B, D]."""
        context = self.context(y)
        first, *others = z.split(self.widths, -1)
        found = [first]
        for down, latents in zip(self.down, others, strict=True):
            mean, log_scale = down(found[-1], context)
            found.append(mean + log_scale.exp() * latents)
        return found

    def log_scalars(self, stage: str, values: dict[str, float]) -> None:
        """Logs the rate of each level too, after a validation or a test, `rate_1` that of v_1."""
        if stage != "train" and len(self.rate_per_latent) == self.latent_dim:
            levels = reversed(self.rate_per_latent.split(self.widths))
            values = values | {f"rate_{i}": float(rate.sum()) for i, rate in enumerate(levels, 1)}
        super().log_scalars(stage, values)


class Evidence(nn.Module):
    """From d_l [B, F] to a_l and log b_l, [B, D'] each: b_l^2 is a softplus, of standardised d_l.

    A fresh network says much the same of every image. Without the standardisation the first steps
    make b_l large for all, and what weighs nothing has no gradient to come back by.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.params = nn.Linear(features, 2 * width)
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))

    def standardise(self, h: Tensor) -> None:
        """Makes the features of these images have mean 0 and variance 1."""
        scale = h.std(0, correction=0)
        scale = scale.clamp(min=LEAST * scale.mean())
        self.mean.copy_(h.mean(0))
        self.scale.copy_(torch.where(scale > 0, scale, 1))

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        a, variance = full_precision(self.params((h - self.mean) / self.scale)).chunk(2, -1)
        log_variance = softplus(variance.clamp(min=LOW)).log()
        return a, 0.5 * torch.where(variance < LOW, variance, log_variance)


class Expectation(nn.Module):
    """The mean and log-scale of p(v_l | v_(l+1), y), for a level of `lower` latents."""

    def __init__(self, upper: int, lower: int, hidden: int, context_dim: int) -> None:
        super().__init__()
        self.layers = dense(upper, [hidden], context_dim)
        self.params = nn.Linear(hidden, 2 * lower)
        with torch.no_grad():
            self.params.weight[:lower] *= HEARD

    def forward(self, v: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        """Of v [..., D'] and y [B, C]; where C = 0, each v is seen once, whatever B."""
        shape = v.shape[:-1]
        if y.shape[-1]:
            shape = torch.broadcast_shapes(shape, y.shape[:-1])
            y = y.expand(1, *shape, -1).flatten(0, -2)
        v = v.expand(1, *shape, -1).flatten(0, -2)
        y = y if y.shape[-1] else v[:, :0]
        params = self.params(self.layers(concatenate(v, y), y))
        return full_precision(params).view(*shape, -1).chunk(2, -1)


def unit_normal(width: int, above: Tensor) -> tuple[Distribution, Callable[[Tensor], Tensor]]:
    """N(0, I) for a level of the prior, whatever is above it."""
    zeros = above.new_zeros(*above.shape[:-1], width)
    return Independent(UnitNormal(zeros, torch.ones_like(zeros)), 1), lambda z: z


def combined(
    expected: Callable[[Tensor], tuple[Tensor, ...]], a: Tensor, log_b: Tensor, above: Tensor
) -> tuple[Distribution, Callable[[Tensor], Tensor]]:
    """q(z_l | v_(l+1), x, y), and the way from z_l to v_l.

    With N(m, s^2) expected and N(a, b^2) told of v_l, their product has the mean m + w (a - m) and
    the variance (1 - w) s^2, where w = s^2 / (s^2 + b^2). For z_l = (v_l - m) / s these are
    w (a - m) / s and 1 - w.
    """
    mean, log_scale = expected(above)
    log_odds = 2 * (log_scale - log_b)  # of w
    weight, log_rest = log_odds.sigmoid(), logsigmoid(-log_odds)
    q = Normal(weight * (a - mean) * (-log_scale).exp(), (0.5 * log_rest).exp())
    return Independent(q, 1), lambda z: mean + log_scale.exp() * z
