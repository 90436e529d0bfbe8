"""Source that reads the original dSprites file (Matthey et al., 2017), cached as packed bits."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from vaelab.data import array_files, store
from vaelab.data.splits import OnDemand, Splits
from vaelab.data.sprites import grid_splits, sprite_factors
from vaelab.errors import UserError
from vaelab.files.regular import check_regular_file

ADDRESS = "https://github.com/google-deepmind/dsprites-dataset"
SIDE = 64  # pixels


class DSprites:
    """Source of the original dSprites file, all for training; caches its bits, downloads nothing.

    The label is the shape. The first call writes the images as bits, 377 MB instead of 3 GB, to a
    file beside the original, which all processes map.

    Args:
        path: Path of dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz.
    """

    note = "the original file"
    factors = sprite_factors(6, 40, 32)

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.prepared = self.path.parent / f"{self.path.stem}.bits.safetensors"

    def moved_to(self, folder: Path) -> Self:
        """Returns a copy that reads the original in another folder, and writes its bits there."""
        return type(self)(str(folder / self.path.name))

    def is_prepared(self) -> bool:
        """Returns whether the prepared file is there."""
        return self.prepared.exists()

    def __call__(self) -> Splits:
        """Returns the data set; writes the packed file under a lock on first use.

        Raises:
            UserError: If the file does not exist or is not the original, or the folder cannot be
                written to.
        """
        if not (self.prepared.exists() or self.path.exists()):
            raise UserError(
                f"{self.path}: there is no such file; it is at {ADDRESS}, "
                "and data=sprites needs none"
            )
        images = store.load_or_create(self.prepared, self.make_arrays, expected={}).train_images
        assert isinstance(images, Tensor)
        shape = (self.factors.num_images, 1, SIDE, SIDE // 8)
        if images.shape != shape or not (images.view(torch.int64) != 0).flatten(1).any(1).all():
            raise UserError(
                f"{self.prepared}: damaged, or other data: should hold {shape[0]:,} sprites; "
                "delete it and it is made anew"
            )
        return grid_splits(Packed(images), self.factors)

    def make_arrays(self) -> array_files.Arrays:
        """Reads the original file; returns its pixels as bits, uint8 [N, 1, H, W / 8], or raises.

        Raises:
            UserError: If the file cannot be read, or is not the original.
        """
        check_regular_file(self.path)
        try:
            file = array_files.load_npz(self.path, names=("imgs", "latents_classes"))
            images, classes = file["imgs"], file["latents_classes"]
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({error.strerror or error})") from error
        except Exception as error:  # zip and array parsers raise many types
            raise UserError(f"{self.path}: damaged, or not the original dSprites") from error
        fault = self.fault_text(images, classes)
        if fault:
            raise UserError(f"{self.path}: not the original dSprites, {fault}")
        return {"train_images": np.packbits(images, axis=-1)[:, None]}

    def fault_text(self, images: np.ndarray, classes: np.ndarray) -> str | None:
        """Returns why imgs and latents_classes are not those of dSprites; None if they are."""
        count = self.factors.num_images
        shape = (count, SIDE, SIDE)
        if images.dtype != np.uint8 or images.shape != shape:
            return f"imgs are {images.dtype} {images.shape} and should be uint8 {shape}"
        if images.max() > 1:
            return "imgs have other values than 0 and 1"
        grid = self.factors.values_at(torch.arange(count)).numpy()
        if not np.array_equal(classes, np.pad(grid, ((0, 0), (1, 0)))):  # colour, which is 0
            return "latents_classes are not the complete grid in its order"
        return None


@dataclass(frozen=True)
class Packed(OnDemand):
    """Black and white images unpacked on indexing from bits, uint8 [N, C, H, W / 8].

    The highest bit is the first pixel.
    """

    bits: Tensor

    @property
    def shape(self) -> tuple[int, int, int, int]:
        count, channels, height, width = self.bits.shape
        return count, channels, height, 8 * width

    @property
    def device(self) -> torch.device:
        return self.bits.device

    def to(self, device: torch.device | str) -> Self:
        """Returns a copy with the bits on a device."""
        return replace(self, bits=self.bits.to(device))

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Returns images uint8 [n, C, H, W], 0 or 255, by indices [n] on the same device."""
        shifts = torch.arange(7, -1, -1, device=self.device).byte()
        bits = (self.bits.index_select(0, rows)[..., None] >> shifts) & 1
        return bits.flatten(-2) * 255
