"""`DiscretizedLogisticMixture`, the likelihood of PixelCNN++ for stored pixels k / 255."""

from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.distributions import Distribution, constraints
from torch.types import _size

from vaelab.distributions.projection import project
from vaelab.likelihoods.levels import (
    MAX_LOG_SCALE,
    MIN_LOG_SCALE,
    clamped_logistic_mean,
    logistic_log_mass,
    nearest_level,
)


class DiscretizedLogisticMixture(nn.Module):
    """The likelihood of PixelCNN++ for pixels k / 255: a mixture whose channels are dependent.

    Salimans et al. (2017), arXiv:1701.05517, eqs. 2 and 3, for any number of channels C. All
    channels of a pixel share one of M components, in which the mean of a channel is linear in the
    values of the channels before it in x. Pixels are independent given z.

    Args:
        components: M (default 10).
    """

    pixels: ClassVar[dict[str, float | None]] = {"grey": 0.0}

    def __init__(self, components: PositiveInt = 10) -> None:
        super().__init__()
        self.components = components

    def channels(self, image_channels: int) -> int:
        """P, the decoder's output channels for C image channels: M (1 + 2 C + C (C - 1) / 2).

        Each component has a weight, C means, C log-scales and C (C - 1) / 2 coefficients.
        """
        coefficients = image_channels * (image_channels - 1) // 2
        return self.components * (1 + 2 * image_channels + coefficients)

    def forward(self, params: Tensor) -> Distribution:
        """p(x | z, y), batch [...], event [C, H, W], of params [..., P, H, W], see `channels`."""
        params = params.unflatten(-3, (self.components, -1))
        weights, rest = params[..., 0, :, :], params[..., 1:, :, :]
        count = rest.shape[-3]  # 2C + C(C - 1)/2 = C(C + 3)/2
        image_channels = round(((9 + 8 * count) ** 0.5 - 3) / 2)
        means, scales, coefficients = rest.split(
            [image_channels, image_channels, count - 2 * image_channels], dim=-3
        )
        return MixtureImage(weights, means + 0.5, scales - 2.0, coefficients.tanh())


class MixtureImage(Distribution):
    """The distribution of images with independent pixels, each a mixture over chains of channels.

    Args:
        weights: Logits of the components, [..., M, H, W].
        means: Means of channels where all earlier channels are 1/2, [..., M, C, H, W].
        log_scales: Log-scales, of the same shape, clamped from `MIN_LOG_SCALE` to `MAX_LOG_SCALE`.
        coefficients: Coefficients of the earlier channels, [..., M, C(C - 1)/2, H, W]: those for
            the second channel, then those for the third, and so on.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.independent(constraints.unit_interval, 3)
    has_rsample = False

    def __init__(
        self, weights: Tensor, means: Tensor, log_scales: Tensor, coefficients: Tensor
    ) -> None:
        self.weights = weights.log_softmax(-3)
        self.means = means
        self.log_scales = project(log_scales, MIN_LOG_SCALE, MAX_LOG_SCALE)
        self.coefficients = coefficients
        *batch, _, channels, height, width = means.shape
        event = torch.Size([channels, height, width])
        super().__init__(torch.Size(batch), event, validate_args=False)

    def shift(self, x: Tensor, channel: int) -> Tensor:
        """The shift [..., M, H, W] of a channel mean by earlier channels of x [..., 1, C, H, W]."""
        first = channel * (channel - 1) // 2
        before = self.coefficients[..., first : first + channel, :, :]
        return (before * (x[..., :channel, :, :] - 0.5)).sum(-3)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-mass [...] of images [..., C, H, W] with levels k / 255."""
        x = value.unsqueeze(-4)
        channels = self.event_shape[0]
        shifts = torch.stack([self.shift(x, c) for c in range(channels)], dim=-3)
        log_masses = logistic_log_mass(x, self.means + shifts, self.log_scales).sum(-3)
        return (self.weights + log_masses).logsumexp(-3).sum((-1, -2))

    @torch.no_grad()
    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008
        """Samples [*sample_shape, ..., C, H, W], channel by channel, without gradients."""

        def noise(like: Tensor) -> Tensor:
            """Uniform noise in (0, 1) of shape [*sample_shape, *like.shape]."""
            shape = (*sample_shape, *like.shape)
            u = torch.rand(shape, dtype=like.dtype, device=like.device)
            return u.clamp(1e-7, 1 - 1e-7)

        gumbel = -(-noise(self.weights).log()).log()
        chosen = (self.weights + gumbel).argmax(-3, keepdim=True)  # [..., 1, H, W]
        logistic = noise(self.means[..., 0, :, :, :]).logit()  # [..., C, H, W]
        x = torch.zeros_like(logistic)
        for c in range(self.event_shape[0]):
            means = self.means[..., c, :, :] + self.shift(x.unsqueeze(-4), c)
            mean = means.gather(-3, chosen).squeeze(-3)
            scales = self.log_scales[..., c, :, :].expand_as(means)
            scale = scales.gather(-3, chosen).squeeze(-3).exp()
            x[..., c, :, :] = nearest_level(mean + scale * logistic[..., c, :, :])
        return x

    @property
    def mean(self) -> Tensor:
        """The approximate mean [..., C, H, W]: of each channel given the means of the earlier ones.

        For the first channel only `clamped_logistic_mean` is approximate.
        """
        weights = self.weights.exp()
        x = torch.zeros_like(self.means[..., 0, :, :, :])
        for c in range(self.event_shape[0]):
            means = self.means[..., c, :, :] + self.shift(x.unsqueeze(-4), c)
            scales = self.log_scales[..., c, :, :]
            x[..., c, :, :] = (weights * clamped_logistic_mean(means, scales)).sum(-3)
        return x

    def expand(self, batch_shape: Any, _instance: Any = None) -> "MixtureImage":
        """The distribution with its batch shape expanded, without normalising weights again."""
        new = MixtureImage.__new__(MixtureImage)
        for name in ("weights", "means", "log_scales", "coefficients"):
            part = getattr(self, name)
            setattr(new, name, part.expand(*batch_shape, *part.shape[len(self.batch_shape) :]))
        super(MixtureImage, new).__init__(batch_shape, self.event_shape, validate_args=False)
        return new
