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
"""Weight of the earlier batches in a running mean, once there are many."""
RECENT = 9
"""After n batches a new one has weight RECENT / (n + RECENT - 1), at least 1 - DECAY."""


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
    root mean squared error over all images of the batch (eq. 6), which maximises its likelihood;
    `per_column` is the same for each column of vectors, or channel. In evaluation these variances
    are fixed at a running mean over training batches: a scale that depends on the image would not
    give a density.

    Args:
        scale: Standard deviation of a pixel: a number, `learned`, `per_pixel`, `optimal` or
            `per_column`. At scale 1 the negative log-density is half the squared error, and at
            sqrt(1/2) the squared error, plus a constant, which is kept.
    """

    family = Normal
    variance: Tensor
    batches: Tensor

    def __init__(
        self, scale: Scale | Literal["learned", "per_pixel", "optimal", "per_column"] = "learned"
    ) -> None:
        optimal = scale in ("optimal", "per_column")
        super().__init__(INITIAL_SCALE if optimal else scale)  # type: ignore[arg-type]
        self.optimal, self.per_column = optimal, scale == "per_column"
        if self.optimal:
            self.register_buffer("variance", torch.tensor(INITIAL_SCALE**2))
            self.register_buffer("batches", torch.tensor(0))

    def connect(self, model: Any) -> None:
        """Sets axes, and for real numbers centre 0 and initial scale 1, in place, unless fixed.

        With `per_column` also makes a variance for each column or channel.
        """
        super().connect(model)
        if self.optimal and model.pixels == "real":
            self.variance.fill_(1.0)
        if self.per_column:
            self.variance = self.variance.expand(model.x_shape[0]).clone()

    def forward(self, params: Tensor) -> Distribution:
        """p(x | z, y) of params [..., P, H, W]; if `optimal`, in training, an `OptimalGaussian`."""
        if not self.optimal:
            return super().forward(params)
        scale = self.variance.sqrt()
        if self.per_column:
            scale = scale.view(-1, *[1] * (self.axes - 1))
        p = Independent(Normal(params + self.centre, scale), self.axes)
        if not self.training:
            return p
        return OptimalGaussian(p, self.update_variance, self.per_column)

    @torch.no_grad()
    def update_variance(self, variance: Tensor) -> None:
        """Adds a variance [] or [C] to the running mean in place; called by `log_prob` in training.

        The mean forgets early batches, in which a decoder has learned little: of few batches the
        last ninth counts, and of many the last hundred.
        """
        self.batches += 1
        weight = (RECENT / (self.batches + RECENT - 1)).clamp(min=1 - DECAY)
        self.variance.lerp_(variance.to(self.variance), weight.to(self.variance))


class OptimalGaussian(Independent):
    """Gaussian pixels of one variance: in `log_prob`, the mean squared error of the images given.

    Args:
        p: Gives the mean; its variance is used for samples only.
        on_variance: Called with the variance [], detached, at each `log_prob`; or [C].
        per_column: Whether each column or channel, the first axis of x, has a variance of its own.
    """

    def __init__(
        self, p: Independent, on_variance: Callable[[Tensor], None], per_column: bool = False
    ) -> None:
        super().__init__(p.base_dist, len(p.event_shape))
        self.on_variance, self.per_column = on_variance, per_column

    def expand(self, batch_shape: Any, _instance: Any = None) -> "OptimalGaussian":
        """The distribution with its batch shape expanded, and the same `on_variance`."""
        shape = (*batch_shape, *self.event_shape)
        p = Independent(self.base_dist.expand(shape), len(self.event_shape))
        return OptimalGaussian(p, self.on_variance, self.per_column)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density [...] at the batch's mean squared error; calls `on_variance` with it.

        The error is over the images of all processes; with gradients, a collective call.
        """
        axes = len(self.event_shape)
        squares = (value - self.base_dist.loc).square()
        columns = squares.movedim(-axes, 0).flatten(1) if self.per_column else squares.flatten()
        variance = gather_batch(columns.mean(-1)[None]).mean(0).clamp(min=MIN_SCALE**2)
        self.on_variance(variance.detach())
        size = math.prod(self.event_shape)
        log_volume = 0.5 * size * (math.log(2 * math.pi) + variance.log().mean())
        squares = squares / (2 * variance.view(-1, *[1] * (axes - 1)))
        return -(squares.flatten(-axes).sum(-1) + log_volume)
