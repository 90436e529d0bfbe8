"""Normalizing flows: distributions of f(e) for e ~ N(0, I) and an invertible f, by `zuko`.

Shapes: B batch, D latents, C features of context, S fixed draws of noise.
"""

from collections.abc import Sequence
from functools import cache, cached_property, partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import (
    AffineTransform,
    Distribution,
    Independent,
    Normal,
    Transform,
    constraints,
)

from vaelab.distributions.argument_checks import restore_argument_checks
from vaelab.distributions.precision import without_autocast

with restore_argument_checks():  # importing zuko turns them off globally
    from zuko.flows import MAF
    from zuko.transforms import ComposedTransform, MonotonicRQSTransform

NUM_FIXED = 64
"""S, the fixed draws of noise from which a flow's mean and variance are estimated."""
NOISE_CHUNK = 8
"""Fixed draws that are transformed at a time."""
INITIAL_FACTOR = 0.01
"""Factor on the initial last layers, so that a flow starts close to the identity."""


class Pushforward(Distribution):
    """The distribution of z = f(e), e ~ N(0, I): log p(z) = log N(e; 0, I) - log |det df/de|.

    Rezende & Mohamed (2015), arXiv:1505.05770, eq. 5. The last drawn z is kept with its
    log-density, as one pass of f gives both. The log-density of any other z takes the inverse of f.

    `mean` and `variance` are estimates, from f at fixed noise. That noise has the moments of N(0,
    I) in each latent, so they are exact where f is affine in each latent.

    Args:
        transform: f. The batch shape of e is broadcast with that of f.
        base: N(0, I), batch [...] and event [D].
    """

    arg_constraints: ClassVar = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, transform: Transform, base: Independent) -> None:
        self.transform, self.base = transform, base
        self.last_drawn: tuple[Tensor, Tensor] | None = None
        super().__init__(base.batch_shape, base.event_shape)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "Pushforward":
        """Returns the distribution with e expanded to `batch_shape`; f is shared."""
        return Pushforward(self.transform, self.base.expand(torch.Size(batch_shape)))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws z [*sample_shape, ..., D] with gradients; caches z and log p(z) for `log_prob`."""
        return self.transform_noise(self.base.rsample(torch.Size(sample_shape)))

    def transform_noise(self, noise: Tensor) -> Tensor:
        """Returns z = f(noise) [..., D], with gradients; caches z and log p(z) for `log_prob`."""
        with without_autocast(noise):
            z, log_det = transform_and_log_det(self.transform, noise)
            self.last_drawn = z, self.base.log_prob(noise) - log_det
        return z

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log p(z) [...]: cached for the last drawn tensor itself, else by inverting f.

        A cached value that was computed without gradients is not returned where they are needed.
        """
        if self.last_drawn is not None and value is self.last_drawn[0]:
            known = self.last_drawn[1]
            if known.requires_grad or not torch.is_grad_enabled():
                return known
        with without_autocast(value):
            shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
            noise, log_det = transform_and_log_det(self.transform.inv, value.expand(*shape, -1))
            return self.base.log_prob(noise) + log_det

    @cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """Estimated mean and variance of z, [..., D] each, by f at S fixed draws; cached."""
        like = self.base.mean
        noise = fixed_noise(like.shape[-1]).to(like)
        noise = noise.view(NUM_FIXED, *[1] * len(self.batch_shape), -1).expand(
            NUM_FIXED, *like.shape
        )
        with without_autocast(like):
            z = torch.cat([self.transform(some) for some in noise.split(NOISE_CHUNK)])
        return z.mean(0), z.var(0, correction=0)

    @property
    def mean(self) -> Tensor:
        """The mean of z, [..., D], estimated at first use and cached, see `moments`."""
        return self.moments[0]

    @property
    def variance(self) -> Tensor:
        """The variance of z, [..., D], estimated at first use and cached, see `moments`."""
        return self.moments[1]


def transform_and_log_det(transform: Transform, value: Tensor) -> tuple[Tensor, Tensor]:
    """Returns f(value) and log |det df/dvalue| of a `zuko` transform f, in one pass."""
    return transform.call_and_ladj(value)  # type: ignore[attr-defined]


@cache
def fixed_noise(latent_dim: int) -> Tensor:
    """Returns noise [S, D], cached, the same tensor each time: mean 0, variance 1, symmetric.

    It has a generator of its own; the global random state is neither used nor changed.
    """
    half = torch.randn(NUM_FIXED // 2, latent_dim, generator=torch.Generator().manual_seed(0))
    half = half / half.square().mean(0).sqrt()
    return torch.cat([half, -half])


def standard_normal(like: Tensor) -> Independent:
    """Returns N(0, I) with the shape [..., D], type and device of a tensor; ignores its values."""
    return Independent(Normal(torch.zeros_like(like), torch.ones_like(like)), 1)


def followed_by_affine(transform: Transform, mean: Tensor, scale: Tensor) -> Transform:
    """Returns the transform e -> mean + scale * f(e) of a transform f, with both [..., D]."""
    return ComposedTransform(transform, AffineTransform(mean, scale, event_dim=1))


def build_autoregressive_flow(
    latent_dim: int,
    context_dim: int,
    *,
    transforms: int,
    hidden: Sequence[int],
    passes: int | None = None,
    bins: int | None = None,
) -> nn.Module:
    """Returns a new flow: a module from context [B, C] to a near-identity transform of z [D].

    The context is None if C = 0. Each step transforms z_i by what networks make of z_1..z_(i-1) and
    the context, in one pass; the next step has the latents in reversed order. The inverse is exact,
    and sequential (Papamakarios et al., 2017, arXiv:1705.07057, section 3). The flow starts close
    to the identity.

    Args:
        latent_dim: D.
        context_dim: C.
        transforms: The number of steps.
        hidden: Widths of the hidden layers of each step's network.
        passes: Passes that the inverse of a step takes (default: D). With two a step is a coupling:
            the context alone transforms the first half of the latents, the first half the second.
        bins: The number of pieces of monotonic splines on [-5, 5], the identity outside (Durkan et
            al., 2019, arXiv:1906.04032, section 3.1). If None, transforms are affine.
    """
    settings: dict[str, Any] = {"hidden_features": [*hidden], "activation": nn.SiLU}
    if bins is not None:
        univariate = partial(MonotonicRQSTransform, slope=1e-3)
        settings |= {"univariate": univariate, "shapes": [(bins,), (bins,), (bins - 1,)]}
    flow = MAF(latent_dim, context_dim, transforms, passes=passes, **settings).transform
    for step in flow.transforms:
        with torch.no_grad():
            for parameter in [*step.parameters()][-2:]:  # weight and bias of the last layer
                parameter *= INITIAL_FACTOR
    for module in flow.modules():
        for name, mask in [*module.named_buffers(recurse=False)]:
            # Not in checkpoints: the masks follow from the arguments of `MAF`.
            module.register_buffer(name, mask, persistent=False)
    return flow
