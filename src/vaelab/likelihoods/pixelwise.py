"""`Pixelwise`, the base of likelihoods whose pixels are independent given z."""

from typing import Any, ClassVar

from torch import nn


class Pixelwise(nn.Module):
    """The base of likelihoods whose pixels and channels are independent given z.

    A subclass sets `params`, the decoder's outputs per pixel and channel, and `pixels`, the kinds
    of pixel that it models, see `vaelab.likelihoods`.
    """

    params = 1
    axes = 3
    """Axes of one x: of an image [C, H, W], or as `connect` sets it."""
    pixels: ClassVar[dict[str, float | None]]

    def channels(self, image_channels: int) -> int:
        """P, the decoder's output channels for C image channels: `params` times C."""
        return self.params * image_channels

    def connect(self, model: Any) -> None:
        """Sets the number of axes of one x in place; called by the constructor of `AutoEncoder`."""
        self.axes = len(model.x_shape)
