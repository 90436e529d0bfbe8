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

from vaelab.distributions.argument_checks import kept_checks
from vaelab.distributions.precision import undiminished

with kept_checks():  # which zuko turns off for everyone
    from zuko.flows import MAF
    from zuko.transforms import ComposedTransform, MonotonicRQSTransform

FIXED = 64
"""S, draws of noise whose images give a mean and a standard deviation."""
SOME = 8
"""Of them at a time."""
NEAR = 0.01
"""Factor of the last layers at the start, so that a flow starts close to the identity."""


class Pushforward(Distribution):
    """The distribution of z = f(e), e ~ N(0, I): log p(z) = log N(e; 0, I) - log |det df/de|.

    Rezende & Mohamed (2015), arXiv:1505.05770, eq. 5. It remembers the last z that it drew and
    its log-density, which then cost one pass of f together; that of any other z takes the inverse.

    `mean` and `stddev` are estimates, from the images of fixed noise. That noise has the moments of
    N(0, I) in each latent, so they are exact where f is affine in each latent.

    Args:
        transform: f, in whose batch shape those of e are broadcast.
        base: N(0, I), batch [...] and event [D].
    """

    arg_constraints: ClassVar = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, transform: Transform, base: Independent) -> None:
        self.transform, self.base = transform, base
        self.drawn: tuple[Tensor, Tensor] | None = None
        super().__init__(base.batch_shape, base.event_shape)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "Pushforward":
        return Pushforward(self.transform, self.base.expand(torch.Size(batch_shape)))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.image(self.base.rsample(torch.Size(sample_shape)))

    def image(self, noise: Tensor) -> Tensor:
        """The images z [..., D] of noise [..., D], remembered with their log-density."""
        with undiminished(noise):
            z, log_det = both(self.transform, noise)
            self.drawn = z, self.base.log_prob(noise) - log_det
        return z

    def log_prob(self, value: Tensor) -> Tensor:
        if self.drawn is not None and value is self.drawn[0]:
            known = self.drawn[1]
            if known.requires_grad or not torch.is_grad_enabled():
                return known
        with undiminished(value):
            shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
            noise, log_det = both(self.transform.inv, value.expand(*shape, -1))
            return self.base.log_prob(noise) + log_det

    @cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of the images of the fixed noise, [..., D] each."""
        like = self.base.mean
        noise = fixed_noise(like.shape[-1]).to(like)
        noise = noise.view(FIXED, *[1] * len(self.batch_shape), -1).expand(FIXED, *like.shape)
        with undiminished(like):
            z = torch.cat([self.transform(some) for some in noise.split(SOME)])
        return z.mean(0), z.var(0, correction=0)

    @property
    def mean(self) -> Tensor:
        return self.moments[0]

    @property
    def variance(self) -> Tensor:
        return self.moments[1]


def both(transform: Transform, value: Tensor) -> tuple[Tensor, Tensor]:
    """The transformed value and log |det J|, in one pass; `zuko` gives every transform the way."""
    return transform.call_and_ladj(value)  # type: ignore[attr-defined]


@cache
def fixed_noise(latent_dim: int) -> Tensor:
    """Noise [S, D], the same at each call: of mean 0 and variance 1 in each latent, and its own
    mirror image.
    """
    half = torch.randn(FIXED // 2, latent_dim, generator=torch.Generator().manual_seed(0))
    half = half / half.square().mean(0).sqrt()
    return torch.cat([half, -half])


def standard_normal(like: Tensor) -> Independent:
    """N(0, I) for latents of the shape [..., D] of a tensor."""
    return Independent(Normal(torch.zeros_like(like), torch.ones_like(like)), 1)


def followed(transform: Transform, mean: Tensor, scale: Tensor) -> Transform:
    """The transform e -> m + s f(e), with m and s [B, D]."""
    return ComposedTransform(transform, AffineTransform(mean, scale, event_dim=1))


def autoregressive(
    latent_dim: int,
    context_dim: int,
    *,
    transforms: int,
    hidden: Sequence[int],
    passes: int | None = None,
    bins: int | None = None,
) -> nn.Module:
    """A module from context [B, C], or None where C = 0, to a transform of latents [D].

    Each step transforms z_i by what networks make of z_1..z_(i-1) and the context, in one
    pass; the next one has the latents in reversed order. The inverse is exact, and
    sequential (Papamakarios et al., 2017, arXiv:1705.07057, section 3). It starts close to
    the identity.

    Args:
        latent_dim: D.
        context_dim: C.
        transforms: Steps.
        hidden: Widths of each step's network.
        passes: Of the inverse of a step, D by itself. With two it is a coupling: the first half
            of the latents is transformed by the context alone and the second half by the first.
        bins: Transforms by monotonic splines of so many pieces on [-5, 5] (Durkan et al., 2019,
            arXiv:1906.04032, section 3.1), the identity outside; if None they are affine.
    """
    settings: dict[str, Any] = {"hidden_features": [*hidden], "activation": nn.SiLU}
    if bins is not None:
        univariate = partial(MonotonicRQSTransform, slope=1e-3)
        settings |= {"univariate": univariate, "shapes": [(bins,), (bins,), (bins - 1,)]}
    flow = MAF(latent_dim, context_dim, transforms, passes=passes, **settings).transform
    for step in flow.transforms:
        with torch.no_grad():
            for parameter in [*step.parameters()][-2:]:  # weight and bias of the last layer
                parameter *= NEAR
    for module in flow.modules():
        for name, mask in [*module.named_buffers(recurse=False)]:
            module.register_buffer(name, mask, persistent=False)  # the settings tell them
    return flow
