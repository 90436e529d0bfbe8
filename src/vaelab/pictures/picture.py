"""Pictures and their files: PNG, the arrays as `.npz`, and GIF if there is a film."""

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

from vaelab.files.atomic import atomic_file
from vaelab.pictures.image_files import write_image
from vaelab.pictures.legends import CARD, FONT, card_font_size, draw_captions, with_names

LARGEST = 128  # most pixels of the width of an enlarged cell, about
FRAME = 80  # milliseconds of a frame of the film


@dataclass(frozen=True)
class Picture(ABC):
    """A picture with the arrays that it shows; subclasses render it.

    Attributes:
        arrays: What the picture shows and was made from, by name; saved with it.
    """

    arrays: dict[str, Tensor]

    @abstractmethod
    def image(self, card: bool = False) -> Image.Image:
        """Renders the picture in RGB, or in mode L if it is grey.

        Args:
            card: Whether it is for a card of TensorBoard, which shrinks it: captions are omitted,
                cells are enlarged less, and letters are larger.
        """

    def frames(self) -> list[Image.Image]:
        """Renders the frames of a film that repeats; empty if nothing moves, as by default."""
        return []

    def save(self, stem: Path, settings: Mapping[str, Any]) -> list[Path]:
        """Writes PNG, NPZ and, only if there are frames, GIF; overwrites; returns the paths.

        Args:
            stem: Path of the files without their suffix.
            settings: Stored with the arrays, as JSON.
        """
        png, npz, gif = (stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "npz", "gif"))
        write_image(png, self.image())
        arrays: dict[str, Any] = {name: v.cpu().numpy() for name, v in self.arrays.items()}
        with atomic_file(npz) as file:
            np.savez_compressed(file, **arrays, settings=json.dumps(dict(settings)))
        if not (frames := self.frames()):
            return [png, npz]
        film = {"save_all": True, "append_images": frames[1:], "duration": FRAME, "loop": 0}
        write_image(gif, frames[0], **film)
        return [png, npz, gif]


@dataclass(frozen=True)
class Grid(Picture):
    """A picture of small images in rows and columns, with an optional film.

    Of two channels only the first is shown, of more than three the first three.

    Attributes:
        cells: Images [R, C', C, H, W] of R rows and C' columns, or [N, C, H, W] to arrange.
        rows: Names along the left side: one for each row, or several in each row; or none.
        heads: A name for each column, or none.
        captions: A name below each cell, or none; omitted on a card.
        note: A line below all, or an empty text.
        film: Images [T, N, C, H, W] of T moments, or None.
        labels: A name below each of the N images of the film, or none.
        gap: Pixels between the cells, before enlarging.
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
        """Renders the grid, enlarged, with its names and note; see `Picture.image`."""
        cells, columns = self.cells, column_count(len(self.cells))
        if cells.dim() == 5:
            cells, columns = cells.flatten(0, 1), cells.shape[1]
        captions, width = ((), CARD[1]) if card else (self.captions, 800)
        grid = enlarged_grid(cells, columns, self.gap, width, captions)
        size = card_font_size(grid, self.rows, self.heads, self.note) if card else FONT
        return with_names(grid, self.rows, self.heads, self.note, size)

    def frames(self) -> list[Image.Image]:
        """Renders the film, forwards and then backwards; empty without a film."""
        if self.film is None:
            return []
        columns = column_count(self.film.shape[1])
        there = [enlarged_grid(cells, columns, self.gap, 600, self.labels) for cells in self.film]
        return there + there[-2:0:-1]  # and back


def column_count(count: int) -> int:
    """Returns the number of columns for `count` images: up to eight, or more for a square."""
    return min(count, max(8, math.ceil(count**0.5)))


def enlarged_grid(
    cells: Tensor, columns: int, gap: int, width: int, captions: Sequence[str] = ()
) -> Image.Image:
    """Returns images in rows on white, enlarged by a whole factor to about `width`.

    Cells are not enlarged beyond about `LARGEST`, so a grid of few images is smaller.

    Args:
        cells: Images [N, C, H, W] in [0, 1]; of two channels only the first is shown, of more
            than three the first three.
        columns: Images in a row.
        gap: Pixels between them, before enlarging.
        width: Wanted width, in pixels; cells are not enlarged beyond about `LARGEST`.
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
    return draw_captions(grid, captions, columns) if captions else grid


def tiled(images: Tensor, columns: int, gap: int = 0, rows: int | None = None) -> Image.Image:
    """Returns images [N, C, H, W] as rows on white, clamped; `rows`, if given, must hold them all.

    torchvision's make_grid is not used: importing it takes longer than all pictures of a training.

    Args:
        images: [N, C, H, W] in [0, 1], of one or three channels.
        columns: Images in a row.
        gap: Pixels around each of them.
        rows: Rows, the last of them white if there are more than needed (default: as needed).
    """
    rows = rows or math.ceil(len(images) / columns)
    height, width = (side + gap for side in images.shape[-2:])
    tiles = torch.full((rows * columns, height, width, images.shape[1]), 255, dtype=torch.uint8)
    pixels = images.float().clamp(0, 1).mul_(255).round_().byte().cpu()
    tiles[: len(images), gap:, gap:] = pixels.permute(0, 2, 3, 1)
    page = tiles.unflatten(0, (rows, columns)).transpose(1, 2).flatten(2, 3).flatten(0, 1)
    return Image.fromarray(pad(page, (0, 0, 0, gap, 0, gap), value=255).squeeze(-1).numpy())
