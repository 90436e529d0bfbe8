"""A picture and its files: PNG, GIF where it moves, and the arrays as `.npz`."""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from vaelab.pictures.legends import CARD, FONT, size_on_card, with_captions, with_names

LARGEST = 128  # pixels of an enlarged cell
FRAME = 80  # milliseconds


@dataclass(frozen=True)
class Picture(ABC):
    """What is seen, and where it comes from.

    Attributes:
        arrays: What the picture shows and was made from, by name.
    """

    arrays: dict[str, Tensor]

    @abstractmethod
    def image(self, card: bool = False) -> Image.Image:
        """The picture, in RGB, or in L where it is grey.

        Args:
            card: Whether it is for a card of TensorBoard, which makes it smaller: less is
                enlarged, and letters are larger.
        """

    def frames(self) -> list[Image.Image]:
        """The same as a film that can be repeated; none where nothing moves."""
        return []

    def save(self, stem: Path, settings: Mapping[str, Any]) -> list[Path]:
        """Writes the files, named `stem` with their suffixes, and returns their paths.

        Args:
            stem: Path without a suffix.
            settings: Kept with the arrays, as JSON.
        """
        png, npz, gif = (stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "npz", "gif"))
        self.image().save(png)
        arrays: dict[str, Any] = {name: v.cpu().numpy() for name, v in self.arrays.items()}
        np.savez_compressed(npz, **arrays, settings=json.dumps(dict(settings)))
        if not (frames := self.frames()):
            return [png, npz]
        frames[0].save(gif, save_all=True, append_images=frames[1:], duration=FRAME, loop=0)
        return [png, npz, gif]


@dataclass(frozen=True)
class Grid(Picture):
    """Small images in rows and columns.

    Those of neither one nor three channels are shown by their first one, or first three.

    Attributes:
        cells: Images [R, C', C, H, W], or [N, C, H, W] to be laid out in rows.
        rows: Names along the left side, one for each row, or several that share it; or none.
        heads: A name for each column, or none.
        captions: A name below each cell, or none.
        note: A line below all, or nothing.
        film: Images [T, N, C, H, W] of T moments.
        labels: A name below each of the N, or none.
        gap: Pixels between the cells.
    """

    cells: Tensor
    rows: Sequence[str] = ()
    heads: Sequence[str] = ()
    captions: Sequence[str] = ()
    note: str = ""
    film: Tensor | None = None
    labels: Sequence[str] = ()
    gap: int = 1

    def image(self, card: bool = False) -> Image.Image:
        cells, columns = self.cells, fitting(len(self.cells))
        if cells.dim() == 5:
            cells, columns = cells.flatten(0, 1), cells.shape[1]
        captions, width = ((), CARD[1]) if card else (self.captions, 800)
        grid = laid_out(cells, columns, self.gap, width, captions)
        size = size_on_card(grid, self.rows, self.heads, self.note) if card else FONT
        return with_names(grid, self.rows, self.heads, self.note, size)

    def frames(self) -> list[Image.Image]:
        if self.film is None:
            return []
        columns = fitting(self.film.shape[1])
        there = [laid_out(cells, columns, self.gap, 600, self.labels) for cells in self.film]
        return there + there[-2:0:-1]  # and back


def fitting(count: int) -> int:
    """Columns for so many images: eight, or as many as make a square."""
    return min(count, max(8, math.ceil(count**0.5)))


def laid_out(
    cells: Tensor, columns: int, gap: int, width: int, captions: Sequence[str] = ()
) -> Image.Image:
    """Images on white, with each pixel repeated until they are about `width` wide.

    Args:
        cells: [N, C, H, W].
        columns: Images in a row.
        gap: Pixels between them, before enlarging.
        width: Pixels.
        captions: A name below each image, or none.
    """
    shown = cells[:, :3] if cells.shape[1] >= 3 else cells[:, :1]
    wide = columns * (cells.shape[-1] + gap) + gap
    factor = max(1, math.ceil(min(width, LARGEST * columns) / wide))
    if captions:
        shown = pad(shown, (0, 0, 0, math.ceil(1.6 * FONT / factor)), value=1.0)
    pixels = tiled(shown, columns, gap)
    size = (factor * pixels.width, factor * pixels.height)
    grid = pixels.resize(size, Image.Resampling.NEAREST)
    return with_captions(grid, captions, columns) if captions else grid


def tiled(images: Tensor, columns: int, gap: int = 0, rows: int | None = None) -> Image.Image:
    """Images side by side on white.

    Not with make_grid, for importing torchvision takes longer than all pictures of a training.

    Args:
        images: [N, C, H, W] in [0, 1], of one or three channels.
        columns: Images in a row.
        gap: Pixels around each of them.
        rows: As many as it takes, if they are not given.
    """
    rows = rows or math.ceil(len(images) / columns)
    height, width = (side + gap for side in images.shape[-2:])
    tiles = torch.full((rows * columns, height, width, images.shape[1]), 255, dtype=torch.uint8)
    pixels = images.float().clamp(0, 1).mul_(255).round_().byte().cpu()
    tiles[: len(images), gap:, gap:] = pixels.permute(0, 2, 3, 1)
    page = tiles.unflatten(0, (rows, columns)).transpose(1, 2).flatten(2, 3).flatten(0, 1)
    return Image.fromarray(pad(page, (0, 0, 0, gap, 0, gap), value=255).squeeze(-1).numpy())
