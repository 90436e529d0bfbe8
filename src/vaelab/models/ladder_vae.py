"""`LadderVAE`, the VAE with a hierarchy of latents, and its networks between levels."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal
from torch.nn.functional import logsigmoid, softplus

from vaelab.distributions.hierarchy import Hierarchy
from vaelab.distributions.precision import full_precision
from vaelab.models.vae import VAE
from vaelab.networks.layers import build_dense_layers, concatenate
from vaelab.parts import TrainingImages
from vaelab.priors import UnitNormal

MEAN_GAIN = 8.0
"""Factor of the initial weights of m_l, which then varies with v_(l+1) about as much as v_l varies
around it: where m_l varies less, the decoder ignores the levels above, and their rate goes to 0."""
MIN_RELATIVE_SCALE = 0.1
"""Least standard deviation to divide a feature by, relative to the mean over features."""
SOFTPLUS_IS_EXP = -15.0
"""Argument below which softplus(x) is exp(x) in float32."""


class LadderVAE(VAE):
    """Ladder VAE, with L levels of latents (Sonderby et al., 2016), arXiv:1602.02282, eq. 1 to 3.

    The levels have latents v_L, ..., v_1, and the decoder gets v_1. The prior of a level below the
    top is p(v_l | v_(l+1), y) = N(m_l, s_l^2), with m_l and s_l from a network of v_(l+1). The
    encoder goes up without noise: d_1 is its features, d_(l+1) a layer over d_l, and N(a_l, b_l^2),
    linear in d_l, the image's approximate likelihood of v_l. The posterior q(v_l | v_(l+1), x, y)
    is the product of prior and likelihood, weighted by their precisions 1 / s_l^2 and 1 / b_l^2
    (section 2.2). At the top, p(v_L | y) and q(v_L | x, y) are the configured prior and posterior.
    loss = distortion + beta * rate, with the rate the sum over levels of KL(q(v_l | v_(l+1), x, y)
    || p(v_l | v_(l+1), y)), each in closed form given the v_(l+1) drawn from q.

    The model's z are these latents standardised by their prior: v_L = z_L and v_l = m_l + s_l z_l.
    That changes neither p(x) nor the rate, and below the top z is N(0, I) under p. A change of one
    z_l also changes v of the levels below.

    The paper's batch normalisation makes an image's bound depend on the other images of its batch.
    Instead, the input of a_l and b_l is standardised with the statistics of the first batch of the
    first training (as Salimans & Kingma, 2016, arXiv:1602.07868, section 3), and its root mean
    square is limited. b_l^2 is a softplus as in the paper. Warm-up is `annealing=linear`. With
    `above=[]` it is `VAE`.

    Args:
        latent_dim: The number of latents of v_1. D is that of all levels, the top one first.
        above: The numbers of latents of v_2, v_3, and so on up.
        hidden: Width of the layers between levels, both up and down.
        prior_scale: Whether s_l is an exponential or s_l^2 a softplus, as in the paper. Scales that
            grow exponentially with v_(l+1) can run away: long training may then diverge. Runs
            without this setting have the exponential.
        feature_limit: L, of the root mean square r of the standardised features of an image, which
            are multiplied by L / sqrt(L^2 + r^2); None for no limit. Without it, features that grow
            in training, as those of `network=conv` do from small ones, may make b_l so small that
            training diverges. Runs without this setting have none.
        posterior: (F, D) -> module, for the top level.
        prior: (D, context_dim) -> module, for the top level.
        decoder: (D, context_dim, shape) -> module, of v_1.
        parts: The other arguments of `VAE`.
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
        prior_scale: Literal["exp", "softplus"] = "exp",
        feature_limit: PositiveFloat | None = None,
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
        self.widths = widths
        features: Any = self.encoder.features
        heights = [(features, latent_dim), *((hidden, width) for width in above)][: len(above)]
        self.up = nn.ModuleList(
            build_dense_layers(n, [hidden], self.context_dim) for n, _ in heights
        )
        self.evidence = nn.ModuleList(
            LevelLikelihood(n, width, feature_limit) for n, width in heights
        )
        self.down = nn.ModuleList(
            LevelPrior(upper, lower, hidden, self.context_dim, prior_scale)
            for upper, lower in pairwise(widths)
        )

    @torch.no_grad()
    def initialise(self, data: TrainingImages) -> None:
        """Sets mean and scale of each level's likelihood from the first training batch, in place.

        Called by `ELBO.setup` of a model neither trained nor loaded.
        """
        batches = data.batches("train")
        batches.rank, batches.world_size = 0, 1  # every process uses the whole batch
        x, y = (part.to(self.device) for part in next(iter(batches)))
        context = self.context(y)
        h = self.encoder(x, context)
        levels: Any = zip(self.up, self.evidence, strict=True)
        for up, likelihood in levels:
            likelihood.standardise(h)
            h = up(concatenate(h, context), context)

    def latent_prior(self, y: Tensor) -> Distribution:
        """The prior p(z | y) of all levels: that of the configuration at the top, N(0, I) below."""
        steps = [partial(standard_normal_level, width) for width in self.widths[1:]]
        return Hierarchy(super().latent_prior(y), steps, self.widths)

    def latent_posterior(self, x: Tensor, y: Tensor) -> Distribution:
        """The posterior q(z | x, y) of standardised latents z [B, D] of all levels, top first."""
        context = self.context(y)
        top, likelihoods = self.ascend(x, context)
        levels = zip(self.down, reversed(likelihoods), strict=True)
        steps = [
            partial(precision_weighted_posterior, partial(down, y=context), *likelihood)
            for down, likelihood in levels
        ]
        return Hierarchy(top, steps, self.widths)

    def encode_for_prior(self, x: Tensor, y: Tensor) -> Distribution:
        """The posterior q(v_L | x, y) of the top level only, which is that of `self.prior`."""
        return self.ascend(x, self.context(y))[0]

    def ascend(self, x: Tensor, context: Tensor) -> tuple[Distribution, list[tuple[Tensor, ...]]]:
        """q(v_L | x, y), and (a_l, log b_l), [B, D_l] each, of the levels 1 to L - 1 in that order.

        This is the deterministic pass up; D_l is the number of latents of level l.
        """
        h, likelihoods = self.encoder(x, context), []
        for up, likelihood in zip(self.up, self.evidence, strict=True):
            likelihoods.append(likelihood(h))
            h = up(concatenate(h, context), context)
        return self.posterior(h), likelihoods

    def image_likelihood(self, z: Tensor, y: Tensor) -> Distribution:
        """The likelihood p(x | v_1, y), with v_1 computed from z [..., B, D] of all levels."""
        return super().image_likelihood(self.level_latents(z, y)[-1], y)

    def level_latents(self, z: Tensor, y: Tensor) -> list[Tensor]:
        """The paper's latents v_L, ..., v_1, [..., B, D_l] each, of standardised z [..., B, D]."""
        context = self.context(y)
        first, *others = z.split(self.widths, -1)
        found = [first]
        for down, latents in zip(self.down, others, strict=True):
            mean, log_scale = down(found[-1], context)
            found.append(mean + log_scale.exp() * latents)
        return found

    def evaluation_scalars(self, means: dict[str, float]) -> dict[str, float]:
        """The scalars of `ELBO`, and each level's `rate_<l>` if `self.rate_per_latent` splits.

        `rate_1` is that of v_1. The rate of the last evaluation splits if it has D elements.
        """
        levels: dict[str, float] = {}
        if len(self.rate_per_latent) == self.latent_dim:
            rates = reversed(self.rate_per_latent.split(self.widths))
            levels = {f"rate_{i}": float(rate.sum()) for i, rate in enumerate(rates, 1)}
        return super().evaluation_scalars(means | levels)


class LevelLikelihood(nn.Module):
    """The approximate likelihood N(a_l, b_l^2) of a level's v_l, linear in standardised d_l [B, F].

    An untrained encoder has nearly the same d_l for every image. Without the standardisation the
    first steps make b_l large for all images; the likelihood then has no weight in the posterior,
    and no gradient to recover.

    Args:
        features: F.
        width: The number of latents of the level.
        limit: As `feature_limit` of `LadderVAE`.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, features: int, width: int, limit: float | None) -> None:
        super().__init__()
        self.limit = limit
        self.params = nn.Linear(features, 2 * width)
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))

    def standardise(self, h: Tensor) -> None:
        """Sets mean and scale [F] in place from features h [B, F]; raises small scales.

        They are clamped to at least `MIN_RELATIVE_SCALE` times the mean over features.
        """
        scale = h.std(0, correction=0)
        scale = scale.clamp(min=MIN_RELATIVE_SCALE * scale.mean())
        self.mean.copy_(h.mean(0))
        self.scale.copy_(torch.where(scale > 0, scale, 1))

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """The likelihood's mean a_l and log-scale log b_l, [B, width] each, of d_l [B, F]."""
        h = (h - self.mean) / self.scale
        if self.limit is not None:
            ratio = (h / self.limit).square().mean(-1, keepdim=True)
            h = h / (1 + ratio).sqrt()
        a, scale = full_precision(self.params(h)).chunk(2, -1)
        return a, softplus_log_scale(scale)


class LevelPrior(nn.Module):
    """The network of the prior p(v_l | v_(l+1), y) = N(m_l, s_l^2) of a level below the top.

    Args:
        upper: The number of latents of v_(l+1).
        lower: The number of latents of v_l.
        hidden: Width of the hidden layer.
        context_dim: Width of the context.
        scale: As `prior_scale` of `LadderVAE`.
    """

    def __init__(
        self,
        upper: int,
        lower: int,
        hidden: int,
        context_dim: int,
        scale: Literal["exp", "softplus"],
    ) -> None:
        super().__init__()
        self.scale = scale
        self.layers = build_dense_layers(upper, [hidden], context_dim)
        self.params = nn.Linear(hidden, 2 * lower)
        with torch.no_grad():
            self.params.weight[:lower] *= MEAN_GAIN

    def forward(self, v: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        """The prior's mean m_l and log s_l, [..., lower] each, of v_(l+1) [..., upper], y [B, C].

        If C = 0, the leading shape is that of v alone, without broadcasting to B.
        """
        shape = v.shape[:-1]
        if y.shape[-1]:
            shape = torch.broadcast_shapes(shape, y.shape[:-1])
            y = y.expand(1, *shape, -1).flatten(0, -2)
        v = v.expand(1, *shape, -1).flatten(0, -2)
        y = y if y.shape[-1] else v[:, :0]
        params = full_precision(self.params(self.layers(concatenate(v, y), y)))
        mean, scale = params.view(*shape, -1).chunk(2, -1)
        return mean, scale if self.scale == "exp" else softplus_log_scale(scale)


def softplus_log_scale(x: Tensor) -> Tensor:
    """The logarithm of a standard deviation whose square is softplus(x), of any shape."""
    log_variance = softplus(x.clamp(min=SOFTPLUS_IS_EXP)).log()
    return 0.5 * torch.where(x < SOFTPLUS_IS_EXP, x, log_variance)


def standard_normal_level(
    width: int, above: Tensor
) -> tuple[Distribution, Callable[[Tensor], Tensor]]:
    """The prior N(0, I) of a level's z_l [..., width], and the identity; a step of `Hierarchy`.

    Only the leading shape of `above` is used.
    """
    zeros = above.new_zeros(*above.shape[:-1], width)
    return Independent(UnitNormal(zeros, torch.ones_like(zeros)), 1), lambda z: z


def precision_weighted_posterior(
    expected: Callable[[Tensor], tuple[Tensor, ...]], a: Tensor, log_b: Tensor, above: Tensor
) -> tuple[Distribution, Callable[[Tensor], Tensor]]:
    """q(z_l | v_(l+1), x, y), and the function from z_l to v_l; a step of `Hierarchy`.

    The product of the prior N(m, s^2) and the likelihood N(a, b^2) of v_l has the mean
    m + w (a - m) and the variance (1 - w) s^2, where w = s^2 / (s^2 + b^2). For z_l = (v_l - m) / s
    these are w (a - m) / s and 1 - w; w / s is finite where 1 / s is not.

    Args:
        expected: From v_(l+1) to m and log s, see `LevelPrior`.
        a: Mean of the likelihood, [B, width].
        log_b: Logarithm of its standard deviation, [B, width].
        above: v_(l+1).
    """
    mean, log_scale = expected(above)
    log_odds = 2 * (log_scale - log_b)  # of w
    log_weight, log_rest = logsigmoid(log_odds), logsigmoid(-log_odds)
    q = Normal((a - mean) * (log_weight - log_scale).exp(), (0.5 * log_rest).exp())
    return Independent(q, 1), lambda z: mean + log_scale.exp() * z
