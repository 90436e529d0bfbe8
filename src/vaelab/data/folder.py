"""Source of a user's own image files in a folder, decoded once to a prepared file."""

import os
from collections import Counter
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Literal, Self

import numpy as np

from vaelab.data.array_files import Arrays
from vaelab.data.array_images import MIN_SIDE
from vaelab.data.folder_listing import Listing, list_folder
from vaelab.data.image_settings import (
    Channels,
    Fit,
    Ground,
    ImageSettings,
    Range,
    Shape,
    Size,
    check_brightness,
    shape_text,
)
from vaelab.data.image_workers import ImageWorkers
from vaelab.data.prepared import ABOUT, About, ImageSpool, is_made_of, load_prepared, prepared_file
from vaelab.data.splits import Splits
from vaelab.errors import UserError
from vaelab.files.image_decoding import Header
from vaelab.training.progress_bar import track

SHOWN = 3  # broken files in the remark, at most


class Folder:
    """Source of image files in a folder; decodes them to a prepared file, and again if they change.

    See `vaelab.data.folder_listing` for parts and classes. If the folder is gone, its
    prepared file is used.

    Args:
        path: The folder with the images.
        folder: Folder of the prepared file.
        size: Height and width of the images, or both in one number; default: as they are.
        fit: `resize` stretches to that size, `crop` keeps proportions and cuts off the rest.
        channels: 1 or 3; default: 3 if one of them has colour.
        ground: What transparent pixels show.
        range: Values of pixels that are black and white; default: those of the file's type.
        broken: Whether a file that cannot be decoded is an error, or passed over.

    Raises:
        UserError: If the range does not rise.
    """

    note = "your own images"

    def __init__(
        self,
        path: str,
        folder: str,
        size: Size | None = None,
        fit: Fit = "resize",
        channels: Channels | None = None,
        ground: Ground = "white",
        range: Range | None = None,  # noqa: A002
        broken: Literal["refuse", "skip"] = "refuse",
    ) -> None:
        self.path, absolute = Path(path), os.path.abspath(path)
        self.settings = ImageSettings.of_source(size, fit, channels, ground, range)
        self.skip_broken = broken == "skip"
        told = {"path": absolute, "broken": broken, "images": self.settings}
        self.prepared = prepared_file(Path(folder), os.path.basename(absolute), told)

    def moved_to(self, folder: Path) -> Self:
        """Returns a copy that prepares its file in another folder."""
        moved = copy(self)
        moved.prepared = folder / self.prepared.name
        return moved

    def is_prepared(self) -> bool:
        """Returns whether the prepared file exists and was made of the present image files."""
        if not self.path.exists():
            return self.prepared.exists()
        return is_made_of(self.prepared, list_folder(self.path).digest)

    def __call__(self) -> Splits:
        """Returns the data set; decodes the images, under a lock, if they are new or have changed.

        Raises:
            UserError: If there are no images, they do not fit, one is broken, or the prepared file
                cannot be written.
        """
        if not self.path.exists() and self.prepared.exists():
            gone = f"{self.path} is gone, these are its images as {self.prepared} has them"
            splits = load_prepared(self.prepared, dict)
            return replace(splits, remarks=(gone, *splits.remarks))
        listing = list_folder(self.path)
        changed = self.prepared.exists() and not is_made_of(self.prepared, listing.digest)
        splits = load_prepared(self.prepared, lambda: self.make_arrays(listing), listing.digest)
        said = [f"{self.path} has changed, and its images were decoded anew"] if changed else []
        return replace(splits, remarks=(*said, *splits.remarks, *listing.remarks))

    def make_arrays(self, listing: Listing) -> Arrays:
        """Decodes the images of a listing, with a progress bar; raises UserError if unfit."""
        paths = [file.path for files in listing.parts.values() for file in files]
        with ImageWorkers(len(paths)) as workers, ImageSpool(self.prepared) as spool:
            full = [str(self.path / path) for path in paths]
            found = track(workers.run("read_header", full), "image headers", len(full))
            headers: dict[str, Header] = {}
            broken: dict[str, str] = {}
            for path, (header, fault, _) in zip(paths, found, strict=True):
                if header:
                    headers[path] = header
                else:
                    self.note_broken(path, fault, broken)
            self.check_headers(headers, broken)

            colour = not all(header.grey for header in headers.values())
            how = self.settings.conversion(self.settings.channels or (3 if colour else 1))
            full = [str(self.path / path) for path in headers]
            found = track(workers.run("decode_file", full, how), "images", len(full))
            done: Counter[str] = Counter()
            kept: set[str] = set()
            brightest, highest = 0, 0.0
            for path, (image, fault, is_broken) in zip(headers, found, strict=True):
                if image is None and not is_broken:
                    raise UserError(f"{self.path / path}: {fault}")
                if image is None:
                    self.note_broken(path, fault, broken)
                    continue
                if spool.count and image.pixels.shape != spool.shape:
                    other = shape_text(image.pixels.shape[1:])
                    raise UserError(
                        f"{self.path / path}: decodes to {other} pixels, unlike what its header "
                        f"says; {self.size_hint()}"
                    )
                spool.append(image.pixels)
                kept.add(path)
                done.update(image.done)
                brightest = max(brightest, int(image.pixels.max()))
                highest = max(highest, image.highest)

            parts = {
                part: [file.path for file in files if file.path in kept]
                for part, files in listing.parts.items()
            }
            if not parts["train"]:
                raise UserError(f"{self.path}: no image for training can be decoded")
            check_brightness(str(self.path), self.settings.span, brightest, highest)
            shapes = {header.size for header in headers.values()}
            remarks = self.settings.remarks(done, len(kept), shapes) + broken_remarks(broken)
            about = About(listing.digest, listing.classes, tuple(remarks))
            arrays = spool.parts({part: len(some) for part, some in parts.items()})
            for part, some in parts.items() if listing.classes else ():
                labels = np.array([listing.labels[path] for path in some], np.int64)
                arrays |= {f"{part}_labels": labels} if some else {}
            return arrays | {ABOUT: about.to_array()}

    def note_broken(self, path: str, fault: str, broken: dict[str, str]) -> None:
        """Adds a broken file to `broken`; raises UserError unless these are skipped."""
        if not self.skip_broken:
            raise UserError(
                f"{self.path / path}: cannot be decoded ({fault}); mend or delete it, or pass over "
                "such files with data.source.broken=skip"
            )
        broken[path] = fault

    def check_headers(self, headers: dict[str, Header], broken: dict[str, str]) -> None:
        """Raises UserError if images differ in size, are too small, or have an open range."""
        if not headers:
            raise UserError(f"{self.path}: none of {len(broken):,} images can be decoded")
        shapes: dict[Shape, str] = {}
        for path, header in headers.items():
            shapes.setdefault(header.size, path)
            if header.open_range and self.settings.span is None:
                raise UserError(
                    f"{self.path / path}: numbers of 32 bits; say which are black and white, as in "
                    "data.source.range=[0,1]"
                )
        if self.settings.size is not None:
            return
        (first, one), *others = shapes.items()
        if others:
            second, another = others[0]
            raise UserError(
                f"{self.path}: images of several sizes, {one} of {shape_text(first)} and {another} "
                f"of {shape_text(second)} pixels; {self.size_hint()}"
            )
        if min(first) < MIN_SIDE:
            raise UserError(
                f"{self.path / one}: {shape_text(first)} pixels, and at least {MIN_SIDE} x "
                f"{MIN_SIDE} are needed; data.source.size={MIN_SIDE} makes them larger"
            )

    def size_hint(self) -> str:
        """Returns what to type for images of one size."""
        return "data.source.size=64 makes all of them 64 x 64, and data.source.fit=crop unstretched"


def broken_remarks(broken: dict[str, str]) -> list[str]:
    """Returns a phrase on broken files with the names of the first ones, or an empty list."""
    if not broken:
        return []
    names = ", ".join(list(broken)[:SHOWN]) + (", ..." if len(broken) > SHOWN else "")
    return [f"broken files passed over: {len(broken):,} ({names})"]
