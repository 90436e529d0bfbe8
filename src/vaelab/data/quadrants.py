"""Source of images to be completed: some quadrants are given as numbers, the others are x."""

from dataclasses import replace
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from vaelab.data.columns import Column
from vaelab.data.sources import TorchvisionDataset
from vaelab.data.splits import OnDemand, Splits


class Quadrants(TorchvisionDataset):
    """Source of a torchvision data set whose images are to be completed from some quadrants.

    Sohn et al. (2015), section 5.1. The pixels of these quadrants, k / 255, are the column of
    numbers `known`, which `condition=continuous` tells a model; in x they are black. A model learns
    that, so the NLL of x comes to that of the other pixels, from above. Bits per dimension are by
    all pixels, the given ones too.

    Args:
        known: How many of the quadrants at the bottom left, top left and top right are given, in
            this order.
        settings: Those of `TorchvisionDataset`.
    """

    def __init__(self, known: Annotated[int, Field(ge=1, le=3)], **settings: Any) -> None:
        super().__init__(**settings)
        self.known = known

    @property
    def note(self) -> str:
        """What the images are, and how much of them is given."""
        given = "1 quadrant" if self.known == 1 else f"{self.known} quadrants"
        return f"{super().note}, {given} given"

    def __call__(self) -> Splits:
        """Returns the data set with the column `known`; downloads it on first use."""
        splits = super().__call__()
        mask = known_mask(splits.train_images.shape[-2:], self.known)
        train, test = (
            split_off(images, mask) for images in (splits.train_images, splits.test_images)
        )
        columns = {"known": Column(train[1], test[1])}
        return replace(splits, train_images=train[0], test_images=test[0], columns=columns)


def known_mask(size: tuple[int, ...], known: int) -> Tensor:
    """Returns the pixels [H, W] in the first `known` quadrants: bottom left, top left, top right.

    Of an odd side the lower or right half has the pixel more.
    """
    height, width = size
    rows, columns = torch.arange(height) < height // 2, torch.arange(width) < width // 2
    top, left = rows[:, None], columns[None]
    quadrants = [~top & left, top & left, top & ~left]
    return torch.stack(quadrants[:known]).any(0)


def split_off(images: Tensor | OnDemand, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Returns images [N, C, H, W] with the pixels of a mask black, and these, k / 255, [N, W]."""
    rows = images[torch.arange(len(images))]
    return rows.masked_fill(mask, 0), rows[..., mask].flatten(1).float() / 255
