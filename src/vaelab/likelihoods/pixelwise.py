"""`Pixelwise`, the base of likelihoods whose pixels are independent given z."""

from typing import ClassVar

from torch import nn


class Pixelwise(nn.Module):
    """The base of likelihoods whose pixels and channels are independent given z.

    A subclass sets `params`, the decoder's outputs per pixel and channel, and `pixels`, the kinds
    of pixel that it models, see `vaelab.likelihoods`.
    """

    params = 1
    pixels: ClassVar[dict[str, float | None]]

    def channels(self, image_channels: int) -> int:
        """P, the decoder's output channels for C image channels: `params` times C."""
        return self.params * image_channels
