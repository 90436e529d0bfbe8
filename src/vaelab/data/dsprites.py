"""The original file of dSprites (Matthey et al., 2017), kept as bits."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from vaelab.data import store
from vaelab.data.splits import OnDemand, Splits
from vaelab.data.sprites import grid, whole_grid
from vaelab.errors import UserError

ADDRESS = "https://github.com/google-deepmind/dsprites-dataset"
SIDE = 64  # pixels


class DSprites:
    """All images of the original file, as the training part; the label is the shape.

    They are written once as bits, 377 MB for 3 GB, in a file beside it that all jobs map.

    Args:
        path: dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz.
    """

    note = "the original file"
    factors = grid(6, 40, 32)

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def __call__(self) -> Splits:
        bits = self.path.parent / f"{self.path.stem}.bits.safetensors"
        if not (bits.exists() or self.path.exists()):
            raise UserError(
                f"{self.path}: there is no such file; it is at {ADDRESS}, "
                "and data=sprites needs none"
            )
        images = store.prepared(bits, self.make).train_images
        assert isinstance(images, Tensor)
        return whole_grid(Packed(images), self.factors)

    def make(self) -> store.Arrays:
        """The pixels as bits, uint8 [N, 1, H, W / 8]."""
        try:
            with np.load(self.path) as file:
                images, classes = file["imgs"], file["latents_classes"]
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({error.strerror or error})") from error
        except Exception as error:  # whatever a zip or array parser makes of it
            raise UserError(f"{self.path}: damaged, or not the original dSprites") from error
        fault = self.fault(images, classes)
        if fault:
            raise UserError(f"{self.path}: not the original dSprites, {fault}")
        return {"train_images": np.packbits(images, axis=-1)[:, None]}

    def fault(self, images: np.ndarray, classes: np.ndarray) -> str | None:
        """What is wrong with the arrays imgs and latents_classes, if anything."""
        count = self.factors.num_images
        shape = (count, SIDE, SIDE)
        if images.dtype != np.uint8 or images.shape != shape:
            return f"imgs are {images.dtype} {images.shape} and should be uint8 {shape}"
        if images.max() > 1:
            return "imgs have other values than 0 and 1"
        grid = self.factors.of(torch.arange(count)).numpy()
        if not np.array_equal(classes, np.pad(grid, ((0, 0), (1, 0)))):  # colour, which is 0
            return "latents_classes are not the complete grid in its order"
        return None


@dataclass(frozen=True)
class Packed(OnDemand):
    """Black and white images from their bits, uint8 [N, C, H, W / 8], the first one highest."""

    bits: Tensor

    @property
    def shape(self) -> tuple[int, int, int, int]:
        count, channels, height, width = self.bits.shape
        return count, channels, height, 8 * width

    @property
    def device(self) -> torch.device:
        return self.bits.device

    def to(self, device: torch.device | str) -> Self:
        return replace(self, bits=self.bits.to(device))

    def __getitem__(self, rows: Tensor) -> Tensor:
        places = torch.arange(7, -1, -1, device=self.device).byte()
        bits = (self.bits.index_select(0, rows)[..., None] >> places) & 1
        return bits.flatten(-2) * 255
