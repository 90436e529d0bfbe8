"""`Bernoulli`, the likelihood of binary pixels."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Bernoulli as BernoulliDistribution
from torch.distributions import Distribution, Independent
from torch.nn.functional import binary_cross_entropy_with_logits

from vaelab.likelihoods.pixelwise import Pixelwise


class Bernoulli(Pixelwise):
    """The Bernoulli likelihood of pixels in {0, 1}, by one logit per pixel and channel."""

    pixels: ClassVar[dict[str, float | None]] = {"binary": 0.0}

    def forward(self, logits: Tensor) -> Distribution:
        """p(x | z, y), batch [...], event [C, H, W], of logits [..., C, H, W]."""
        return BernoulliImage(BernoulliDistribution(logits=logits), self.axes)


class BernoulliImage(Independent):
    """Independent Bernoulli pixels of an image, with a faster log_prob than `Independent`."""

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-mass [...] of images [..., C, H, W].

        The sum is taken before its sign is changed, which saves one pass over all pixels, forward
        and backward.
        """
        logits, value = torch.broadcast_tensors(self.base_dist.logits, value)
        loss = binary_cross_entropy_with_logits(logits, value, reduction="none")
        return -loss.flatten(-len(self.event_shape)).sum(-1)
