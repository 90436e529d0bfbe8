"""p(x | z, y): modules from decoder outputs [..., P * C, H, W] to a distribution over images.

Each has `params_per_channel`, P, which the decoder must provide, and `pixels`: the kinds of
pixel (see `vaelab.data.pixels`) that it models, with what must be added to its bits per
dimension, or None where bits per dimension are not defined.
"""

import math
from typing import ClassVar, Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn
from torch.distributions import Bernoulli as BernoulliDistribution
from torch.distributions import Distribution, Independent, Normal
from torch.nn.functional import binary_cross_entropy_with_logits


class Bernoulli(nn.Module):
    """Pixels in {0, 1}."""

    params_per_channel = 1
    pixels: ClassVar[dict[str, float | None]] = {"binary": 0.0}

    def forward(self, logits: Tensor) -> Distribution:
        return BernoulliImage(BernoulliDistribution(logits=logits), 3)


class BernoulliImage(Independent):
    """Independent bits of an image, summed before the sign is turned: one pass less each way."""

    def log_prob(self, value: Tensor) -> Tensor:
        logits, value = torch.broadcast_tensors(self.base_dist.logits, value)
        loss = binary_cross_entropy_with_logits(logits, value, reduction="none")
        return -loss.flatten(-3).sum(-1)


class Gaussian(nn.Module):
    """Pixels in [0, 1] with the same noise everywhere, a density.

    The mean is the decoder's output plus 1/2, so that a fresh network starts in mid-grey.
    Rybkin et al. (2021), arXiv:2006.13202, learn the scale, as one number.

    Args:
        scale: Standard deviation of a pixel, or `learned`. Scale 1 is half the squared error
            and sqrt(1/2) the squared error, up to a constant, which is kept.
    """

    params_per_channel = 1
    pixels: ClassVar[dict[str, float | None]] = {"dequantized": 8.0, "grey": None}

    def __init__(self, scale: PositiveFloat | Literal["learned"] = "learned") -> None:
        super().__init__()
        learned = scale == "learned"
        start = 0.25 if learned else float(scale)  # about the spread of pixels in photographs
        self.log_scale = nn.Parameter(torch.tensor(math.log(start)), requires_grad=learned)

    def forward(self, params: Tensor) -> Distribution:
        return Independent(Normal(params + 0.5, self.log_scale.exp()), 3)
