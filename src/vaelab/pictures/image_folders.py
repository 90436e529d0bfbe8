"""Image files of the user's own, read for a trained model as its training read them."""

import os
import warnings
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vaelab.data.folder import broken_remarks
from vaelab.data.folder_listing import as_text, find_files, label_folders
from vaelab.data.image_settings import ImageSettings, advised_ranges, darkness
from vaelab.errors import UserError
from vaelab.evaluation.given_images import GivenImages
from vaelab.files.image_decoding import (
    SUFFIXES,
    Decoded,
    UnfitImageError,
    decode_file,
    fault_text,
    read_header,
)
from vaelab.files.regular import check_regular_file


def is_image_file(path: Path) -> bool:
    """Returns whether a path has the ending of an image file."""
    return path.suffix.lower() in SUFFIXES


def read_image_folder(
    where: Path,
    shape: Sequence[int],
    resize: bool,
    settings: ImageSettings,
    skip_broken: bool = False,
    classes: Collection[str] = (),
) -> GivenImages:
    """Reads an image file, or all below a folder sorted by name, as uint8 [N, C, H, W].

    Each is decoded as by `data=folder` with these settings, but for the number of channels. The
    files and their labels are those that it finds, see `label_folders`; a single file has no label.
    Skips hidden files and those of other endings than `SUFFIXES`, and says how many in a remark.
    Warns if all images are nearly black.

    Args:
        where: The folder, or one file.
        shape: (C, H, W).
        resize: Whether images of another size are brought to it, also where training had none.
        settings: How the images of the training were made alike.
        skip_broken: Whether a file that cannot be decoded is passed over, and named in a remark.
        classes: The classes of the training.

    Raises:
        UserError: If there are no images, or one cannot be read or has another size.
    """
    height, width = shape[1:]
    folder, names = where.parent, [where.name]
    labels: list[str] = []
    passed: list[str] = []
    if where.is_dir():
        try:
            files, passed = find_files(where)
        except UserError as error:
            raise UserError(f"images={error}") from error
        folder, names = where, [file.path for file in files]
        labels = label_folders(files, classes)
    images: list[Decoded] = []
    kept: list[int] = []
    broken: dict[str, str] = {}
    for i, name in enumerate(names):
        path = folder / name
        try:
            image = decode_as_trained(path, shape, settings)
        except UnfitImageError as error:
            hint = "; say it with range=[0,1]" if settings.span is None else ""
            raise UserError(f"images={path}: cannot be read ({error}){hint}") from error
        except UserError:
            raise
        except Exception as error:  # of many types, by the decoder
            fault = fault_text(error)
            if not skip_broken:
                raise UserError(
                    f"images={path}: cannot be read ({fault}); broken=skip passes over it"
                ) from error
            broken[name] = fault
            continue
        if image.size != (height, width) and not resize and settings.size is None:
            raise UserError(
                f"images={path}: is {image.size[1]} x {image.size[0]} pixels, and this model takes "
                f"{width} x {height}; resize=true stretches it"
            )
        images.append(image)
        kept.append(i)
    if not images:
        raise UserError(f"images={where}: none of {len(names):,} images can be decoded")
    if said := darkness_of(where, settings, images):
        advised = advised_ranges(max(image.highest for image in images))
        advised = advised.replace("data.source.range", "range")
        warnings.warn(f"{said}; give {advised} if they are as dark as that", stacklevel=2)
    done = Counter(key for image in images for key in image.done)
    remarks = settings.remarks(done, len(images), {image.size for image in images})
    return GivenImages(
        np.stack([image.pixels for image in images]),
        {"label": np.array([labels[i] for i in kept])} if labels else {},
        [as_text(names[i]) for i in kept],
        remarks + broken_remarks(broken) + passed,
    )


def read_image_as_trained(path: Path, shape: Sequence[int], settings: ImageSettings) -> np.ndarray:
    """Reads an image file as uint8 [C, H, W] by the settings of a training, or raises UserError.

    Warns if it is nearly black, or resized where training resized none.

    Args:
        path: The file.
        shape: (C, H, W).
        settings: How the images of the training were made alike.
    """
    try:
        image = decode_as_trained(path, shape, settings)
    except UserError:
        raise
    except Exception as error:  # of many types, by the decoder
        raise UserError(f"images={path}: cannot be read ({fault_text(error)})") from error
    (old_height, old_width), (height, width) = image.size, shape[1:]
    if "resized" in image.done and settings.size is None:
        verb = "stretched" if settings.fit == "resize" else "cropped and resized"
        size = f"from {old_width} x {old_height} pixels to {width} x {height}"
        warnings.warn(f"images={path}: {verb}, {size}", stacklevel=2)
    if said := darkness_of(path, settings, [image]):
        warnings.warn(said, stacklevel=2)
    return image.pixels


def decode_as_trained(path: Path, shape: Sequence[int], settings: ImageSettings) -> Decoded:
    """Decodes an image file by the settings of a training, to the model's size and channels.

    Args:
        path: The file.
        shape: (C, H, W).
        settings: How the images of the training were made alike.

    Raises:
        UserError: If it is no file, or the model has other channels than image files.
        UnfitImageError: If no setting says what is black and white in it, or it is beyond that.
        Exception: Of many types, if it is broken.
    """
    channels, height, width = shape
    if channels not in (1, 3):
        raise UserError(f"images={path}: no image file has the {channels} channels of this model")
    check_regular_file(path, "images=")
    if settings.span is None and read_header(os.fspath(path)).open_range:
        raise UnfitImageError("numbers of 32 bits, which do not say what is black and white")
    conversion = replace(settings, size=(height, width)).conversion(channels)
    return decode_file(os.fspath(path), conversion)


def darkness_of(where: Path, settings: ImageSettings, images: Sequence[Decoded]) -> str | None:
    """Returns a phrase on images that are all nearly black; None if some are not, or by a range."""
    brightest = max(int(image.pixels.max()) for image in images)
    highest = max(image.highest for image in images)
    return darkness(f"images={where}", settings.span, brightest, highest)
