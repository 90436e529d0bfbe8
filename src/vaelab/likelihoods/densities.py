"""`Gaussian` and `Laplace`, densities around a decoded mean."""

import math
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal
from torch.distributions import Laplace as LaplaceDistribution

from vaelab.distributed import gather_batch
from vaelab.likelihoods.pixelwise import Pixelwise

INITIAL_SCALE = 0.25
"""Initial scale where it is learned: about the standard deviation of pixels in photographs."""
MIN_SCALE = 1e-6
"""Least scale, so that its square and the inverse of that stay well in the range of float32."""
Scale = Annotated[float, Field(ge=MIN_SCALE, le=1 / MIN_SCALE)]
DECAY = 0.99
"""Weight of the earlier batches in a running mean."""


class LocationScale(Pixelwise):
    """The base of densities of pixels in [0, 1] with a location-scale noise around a mean.

    The mean is the decoder's output plus 1/2, so that an untrained decoder gives mid-grey.

    Args:
        scale: The scale of the noise: a fixed number, `learned` (one for all pixels), or
            `per_pixel` (by the decoder, as a factor of `INITIAL_SCALE`).
    """

    pixels: ClassVar[dict[str, float | None]] = {"dequantized": 8.0, "grey": None, "real": None}
    centre = 0.5
    """Added to the decoder's output, which is about 0 at the start: mid-grey; of numbers 0."""
    family: Callable[[Tensor, Tensor], Distribution]

    def __init__(self, scale: Scale | Literal["learned", "per_pixel"] = "learned") -> None:
        super().__init__()
        self.params = 2 if scale == "per_pixel" else 1
        learned = scale == "learned"
        start = INITIAL_SCALE if isinstance(scale, str) else float(scale)
        self.log_scale = nn.Parameter(torch.tensor(math.log(start)), requires_grad=learned)
        self.is_fixed = not isinstance(scale, str)

    def connect(self, model: Any) -> None:
        """Sets axes, and for real numbers centre 0 and initial scale 1, in place, unless fixed."""
        super().connect(model)
        if model.pixels == "real":
            self.centre = 0.0
            if not self.is_fixed:
                self.log_scale.data.zero_()

    def forward(self, params: Tensor) -> Distribution:
        """p(x | z, y) of params [..., P, H, W]: means - 1/2, then if per_pixel log(scale / 0.25).

        P is C, or 2 C for scale=per_pixel. Batch [...] and event [C, H, W].
        """
        location, *by_pixel = params.chunk(self.params, dim=-self.axes)
        log_scale = self.log_scale + by_pixel[0] if by_pixel else self.log_scale
        return Independent(self.family(location + self.centre, log_scale.exp()), self.axes)


class Laplace(LocationScale):
    """The Laplace likelihood of pixels in [0, 1], the density of the absolute error.

    At scale 1 the negative log-density is the absolute error plus a constant, which is kept.
    """

    family = LaplaceDistribution


class Gaussian(LocationScale):
    """The Gaussian likelihood of pixels in [0, 1], the density of the squared error.

    Rybkin et al. (2021), arXiv:2006.13202: the scale is learned (section 4.1), or `optimal`, the
    root mean squared error over all images of the batch (eq. 6), which maximises its likelihood.
    In evaluation the optimal variance is fixed at a running mean over training batches: a scale
    that depends on the image would not give a density.

    Args:
        scale: Standard deviation of a pixel: a number, `learned`, `per_pixel` or `optimal`. At
            scale 1 the negative log-density is half the squared error, and at sqrt(1/2) the squared
            error, plus a constant, which is kept.
    """

    family = Normal
    variance: Tensor
    batches: Tensor

    def __init__(
        self, scale: Scale | Literal["learned", "per_pixel", "optimal"] = "learned"
    ) -> None:
        super().__init__(INITIAL_SCALE if scale == "optimal" else scale)
        self.optimal = scale == "optimal"
        if self.optimal:
            self.register_buffer("variance", torch.tensor(INITIAL_SCALE**2))
            self.register_buffer("batches", torch.tensor(0))

    def connect(self, model: Any) -> None:
        """Sets axes, and for real numbers centre 0 and initial scale 1, in place, unless fixed."""
        super().connect(model)
        if self.optimal and model.pixels == "real":
            self.variance.fill_(1.0)

    def forward(self, params: Tensor) -> Distribution:
        """p(x | z, y) of params [..., P, H, W]; if `optimal`, in training, an `OptimalGaussian`."""
        if not self.optimal:
            return super().forward(params)
        p = Independent(Normal(params + self.centre, self.variance.sqrt()), self.axes)
        return OptimalGaussian(p, self.update_variance) if self.training else p

    @torch.no_grad()
    def update_variance(self, variance: Tensor) -> None:
        """Adds a variance [] to the running mean in place; called by `log_prob` in training."""
        self.batches += 1
        weight = 1 / self.batches.clamp(max=1 / (1 - DECAY))
        self.variance.lerp_(variance.to(self.variance), weight)


class OptimalGaussian(Independent):
    """Gaussian pixels of one variance: in `log_prob`, the mean squared error of the images given.

    Args:
        p: Gives the mean; its variance is used for samples only.
        on_variance: Called with the variance [], detached, at each `log_prob`.
    """

    def __init__(self, p: Independent, on_variance: Callable[[Tensor], None]) -> None:
        super().__init__(p.base_dist, len(p.event_shape))
        self.on_variance = on_variance

    def expand(self, batch_shape: Any, _instance: Any = None) -> "OptimalGaussian":
        """The distribution with its batch shape expanded, and the same `on_variance`."""
        shape = (*batch_shape, *self.event_shape)
        p = Independent(self.base_dist.expand(shape), len(self.event_shape))
        return OptimalGaussian(p, self.on_variance)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density [...] at the batch's mean squared error; calls `on_variance` with it.

        The error is over the images of all processes; with gradients, a collective call.
        """
        squares = (value - self.base_dist.loc).square()
        variance = gather_batch(squares.mean()[None]).mean().clamp(min=MIN_SCALE**2)
        self.on_variance(variance.detach())
        size = math.prod(self.event_shape)
        constant = 0.5 * size * (math.log(2 * math.pi) + variance.log())
        return -(squares.flatten(-len(self.event_shape)).sum(-1) / (2 * variance) + constant)
