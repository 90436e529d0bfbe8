"""Folders of image files, read for a trained model: classes are subfolders, if there are any."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vaelab.data.folder import broken_remarks
from vaelab.data.image_settings import ImageSettings
from vaelab.errors import UserError
from vaelab.evaluation.given_images import GivenImages
from vaelab.files.image_decoding import UnfitImageError, decode_file, fault_text, read_header

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")


def is_image_file(path: Path) -> bool:
    """Returns whether a path has the ending of an image file."""
    return path.suffix.lower() in SUFFIXES


def read_image_folder(
    where: Path,
    shape: Sequence[int],
    resize: bool,
    settings: ImageSettings,
    skip_broken: bool = False,
) -> GivenImages:
    """Reads an image file, or all below a folder sorted by name, as uint8 [N, C, H, W].

    Each is decoded as by `data=folder` with these settings, but for the number of channels. The
    label is the subfolder that a file is in, if all are in one. Skips hidden files and those of
    other endings than `SUFFIXES`, and warns how many.

    Args:
        where: The folder, or one file.
        shape: (C, H, W).
        resize: Whether images of another size are brought to it, also where training had none.
        settings: How the images of the training were made alike.
        skip_broken: Whether a file that cannot be decoded is passed over, and named in a remark.

    Raises:
        UserError: If there are no images, or one cannot be read or has another size.
    """
    channels, height, width = shape
    if channels not in (1, 3):
        raise UserError(f"images={where}: no image file has the {channels} channels of this model")
    folder, paths = (where, files_below(where)) if where.is_dir() else (where.parent, [where])
    how = replace(settings, size=(height, width)).conversion(channels)
    images, kept = [], []
    broken: dict[str, str] = {}
    for path in paths:
        try:
            size = read_header(str(path)).size
            image = decode_file(str(path), how).pixels
        except Exception as error:  # of many types, by the decoder
            fault = fault_text(error)
            if skip_broken and not isinstance(error, UnfitImageError):
                broken[path.relative_to(folder).as_posix()] = fault
                continue
            hint = "" if isinstance(error, UnfitImageError) else "; broken=skip passes over it"
            raise UserError(f"images={path}: cannot be read ({fault}){hint}") from error
        if size != (height, width) and not resize and settings.size is None:
            raise UserError(
                f"images={path}: is {size[1]} x {size[0]} pixels, and this model takes "
                f"{width} x {height}; resize=true stretches it"
            )
        images.append(image)
        kept.append(path)
    if not images:
        raise UserError(f"images={where}: none of {len(paths):,} images can be decoded")
    names = [path.relative_to(folder) for path in kept]
    classes = [name.parts[0] for name in names if len(name.parts) > 1]
    columns = {"label": np.array(classes)} if len(classes) == len(names) else {}
    files = [name.as_posix() for name in names]
    return GivenImages(np.stack(images), columns, files, broken_remarks(broken))


def files_below(folder: Path) -> list[Path]:
    """Returns the image files below a folder, sorted by name; UserError if there are none.

    Skips hidden files and folders; warns how many files are no images by their names.
    """
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if os.path.isfile(path)  # without access, pathlib's raises
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    images = [path for path in found if is_image_file(path)]
    if not images:
        raise UserError(f"images={folder}: has no image files ({', '.join(SUFFIXES)})")
    if others := len(found) - len(images):
        warnings.warn(
            f"images={folder}: {others} file{'s' * (others > 1)} left out, by the ending no image",
            stacklevel=3,
        )
    return images
