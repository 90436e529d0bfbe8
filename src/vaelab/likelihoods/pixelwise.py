from typing import ClassVar

from torch import nn


class Pixelwise(nn.Module):
    """Channels and pixels that are independent given z, each with `params` numbers."""

    params = 1
    pixels: ClassVar[dict[str, float | None]]

    def channels(self, image_channels: int) -> int:
        """P, the channels of the decoder's output for images of so many channels."""
        return self.params * image_channels
