from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Bernoulli as BernoulliDistribution
from torch.distributions import Distribution, Independent
from torch.nn.functional import binary_cross_entropy_with_logits

from vaelab.likelihoods.pixelwise import Pixelwise


class Bernoulli(Pixelwise):
    """Pixels in {0, 1}."""

    pixels: ClassVar[dict[str, float | None]] = {"binary": 0.0}

    def forward(self, logits: Tensor) -> Distribution:
        return BernoulliImage(BernoulliDistribution(logits=logits), 3)


class BernoulliImage(Independent):
    """Independent bits of an image, summed before the sign is turned: one pass less each way."""

    def log_prob(self, value: Tensor) -> Tensor:
        logits, value = torch.broadcast_tensors(self.base_dist.logits, value)
        loss = binary_cross_entropy_with_logits(logits, value, reduction="none")
        return -loss.flatten(-3).sum(-1)
