import math
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal
from torch.distributions import Laplace as LaplaceDistribution

from vaelab.distributed import whole
from vaelab.likelihoods.pixelwise import Pixelwise

SPREAD = 0.25
"""Scale at the start, where it is learned: about the spread of pixels in photographs."""
NARROWEST = 1e-6
"""Least scale; squares of smaller ones leave the range of float32."""
Scale = Annotated[float, Field(ge=NARROWEST, le=1 / NARROWEST)]
MEMORY = 0.99
"""Weight of the batches before in a running mean."""


class Located(Pixelwise):
    """Pixels in [0, 1] with noise of one family around a mean, a density.

    The mean is the decoder's output plus 1/2, so that a fresh network starts in mid-grey.

    Args:
        scale: Of the noise: a number, `learned` as one number for all pixels, or `per_pixel`,
            from the decoder.
    """

    pixels: ClassVar[dict[str, float | None]] = {"dequantized": 8.0, "grey": None}
    family: Callable[[Tensor, Tensor], Distribution]

    def __init__(self, scale: Scale | Literal["learned", "per_pixel"] = "learned") -> None:
        super().__init__()
        self.params = 2 if scale == "per_pixel" else 1
        learned = scale == "learned"
        start = SPREAD if isinstance(scale, str) else float(scale)
        self.log_scale = nn.Parameter(torch.tensor(math.log(start)), requires_grad=learned)

    def forward(self, params: Tensor) -> Distribution:
        located, *by_pixel = params.chunk(self.params, dim=-3)
        log_scale = self.log_scale + by_pixel[0] if by_pixel else self.log_scale
        return Independent(self.family(located + 0.5, log_scale.exp()), 3)


class Laplace(Located):
    """The absolute error as a density: pixels in [0, 1] with Laplace noise.

    Scale 1 is the absolute error, up to a constant, which is kept.
    """

    family = LaplaceDistribution


class Gaussian(Located):
    """The squared error as a density: pixels in [0, 1] with Gaussian noise.

    Rybkin et al. (2021), arXiv:2006.13202: the scale is learned (section 4.1), or `optimal`, that
    which is best for the batch in closed form (eq. 6): the root mean squared error over all of
    its images. That is for training; for other images it stands still, at a running mean of the
    training batches', or it would be no density of them.

    Args:
        scale: Standard deviation of a pixel, a number, `learned`, `per_pixel` or `optimal`. Scale
            1 is half the squared error and sqrt(1/2) the squared error, up to a constant, which
            is kept.
    """

    family = Normal
    variance: Tensor
    batches: Tensor

    def __init__(
        self, scale: Scale | Literal["learned", "per_pixel", "optimal"] = "learned"
    ) -> None:
        super().__init__(SPREAD if scale == "optimal" else scale)
        self.optimal = scale == "optimal"
        if self.optimal:
            self.register_buffer("variance", torch.tensor(SPREAD**2))
            self.register_buffer("batches", torch.tensor(0))

    def forward(self, params: Tensor) -> Distribution:
        if not self.optimal:
            return super().forward(params)
        p = Independent(Normal(params + 0.5, self.variance.sqrt()), 3)
        return OptimalGaussian(p, self.remember) if self.training else p

    @torch.no_grad()
    def remember(self, variance: Tensor) -> None:
        """Takes the variance of a training batch into the running mean."""
        self.batches += 1
        weight = 1 / self.batches.clamp(max=1 / (1 - MEMORY))
        self.variance.lerp_(variance.to(self.variance), weight)


class OptimalGaussian(Independent):
    """Independent pixels whose common variance is the best for the images it is asked about."""

    def __init__(self, p: Independent, told: Callable[[Tensor], None]) -> None:
        super().__init__(p.base_dist, 3)
        self.told = told

    def expand(self, batch_shape: Any, _instance: Any = None) -> "OptimalGaussian":
        shape = (*batch_shape, *self.event_shape)
        return OptimalGaussian(Independent(self.base_dist.expand(shape), 3), self.told)

    def log_prob(self, value: Tensor) -> Tensor:
        squares = (value - self.base_dist.loc).square()
        variance = whole(squares.mean()[None]).mean().clamp(min=NARROWEST**2)
        self.told(variance.detach())
        size = math.prod(squares.shape[-3:])
        constant = 0.5 * size * (math.log(2 * math.pi) + variance.log())
        return -(squares.flatten(-3).sum(-1) / (2 * variance) + constant)
