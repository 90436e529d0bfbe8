"""Random flips and shifts of training images."""

import torch
from torch import Tensor


def flip_and_shift(images: Tensor, generator: torch.Generator, *, flip: bool, shift: int) -> Tensor:
    """Returns images, each mirrored with probability 1/2 if `flip`, and moved by random pixels.

    The way is uniform on -shift to shift, down and to the right. Pixels of the edge are repeated
    where the image has moved away. Never waits for the device.

    Args:
        images: [N, C, H, W].
        generator: Of the images' device.
        flip: Whether to mirror images, left to right.
        shift: Pixels that an image is moved by at most, each way.
    """
    count, channels, height, width = images.shape
    device = images.device
    rows = torch.arange(height, device=device).expand(count, -1)
    columns = torch.arange(width, device=device).expand(count, -1)
    if shift:
        ways = torch.randint(-shift, shift + 1, (2, count, 1), generator=generator, device=device)
        rows = (rows - ways[0]).clamp(0, height - 1)
        columns = (columns - ways[1]).clamp(0, width - 1)
    if flip:
        mirrored = torch.randint(2, (count, 1), generator=generator, device=device)
        columns = torch.where(mirrored == 1, width - 1 - columns, columns)
    places = rows[:, :, None] * width + columns[:, None, :]
    pixels = places.view(count, 1, height * width).expand(-1, channels, -1)
    return images.flatten(2).gather(2, pixels).view_as(images)
