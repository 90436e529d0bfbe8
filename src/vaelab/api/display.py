"""`show`: images as one picture, which a notebook displays."""

from typing import Any

import torch
from PIL import Image

from vaelab.api.arrays import to_numpy
from vaelab.data.array_images import find_layout
from vaelab.data.pixels import from_user
from vaelab.errors import UserError
from vaelab.inference import as_tensor
from vaelab.pictures.picture import Grid

BEYOND = 0.25  # how far the mean images of a model of [0, 1] may be outside


def show(images: Any) -> Image.Image:
    """Returns images in rows as one picture of Pillow, enlarged, which a notebook displays.

    Args:
        images: Images of a model, as `model.sample(16)`, or one's own: an array, tensor or list
            [N, C, H, W], [N, H, W, C] or [N, H, W], or one grey image [H, W]. Pixels are floats in
            [0, 1], whole numbers of 0..255 or booleans. Of floats on another scale, as [-1, 1] or
            [0, 16], the least and largest of these images are black and white.

    Raises:
        UserError: If they are no images.
    """
    array = to_numpy("images", images)
    array = array[None] if array.ndim == 2 else array
    if array.ndim not in (3, 4) or not array.size:
        raise UserError(
            f"images: {[*array.shape]} should be [N, C, H, W], [N, H, W, C] or [N, H, W]"
        )
    x = as_tensor(array, "images")
    x = x[:, None] if x.ndim == 3 else x
    if find_layout("images", tuple(array.shape))[0] == "NHWC":
        x = x.movedim(-1, 1)
    if x.is_floating_point():
        low, high = x.min(), x.max()
        if low < -BEYOND or high > 1 + BEYOND:
            x = (x - low) / (high - low if high > low else 1)
        x = x.clamp(0, 1)
    return Grid({}, from_user(x, "grey", torch.default_generator)).image()
