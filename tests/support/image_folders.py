"""Folders of small image files for tests, and what their source says."""

import numpy as np
import pytest
from PIL import Image

from vaelab.data import Folder, Images
from vaelab.data.description import describe
from vaelab.errors import UserError


def noise(number, shape=(9, 8), kind=np.uint8):
    """Returns random pixels, always the same for a number and shape; the first is white."""
    highest = np.iinfo(kind).max
    drawn = np.random.default_rng(number).integers(0, highest, shape, kind, endpoint=True)
    drawn.flat[0] = highest
    return drawn


def save_image(path, pixels, **options):
    """Writes an image file of the format of its suffix, and the folders above it; returns it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


def save_folder(folder, *paths, shape=(9, 8)):
    """Writes an image of `noise` at each path in a folder, numbered from 0; returns the folder."""
    for number, path in enumerate(paths):
        save_image(folder / path, noise(number, shape))
    return folder


def read_folder(folder, **settings):
    """Returns the `Splits` of a folder, prepared in another one beside it."""
    return Folder(str(folder), str(folder.parent / "prepared"), **settings)()


def folder_remarks(splits):
    """Returns the start-up phrases on these `Splits`."""
    data = Images(source=lambda: splits, batch_size=2, val_size=1, test_size=1, pixels="grey")
    return describe(data)


def folder_error(folder, **settings):
    """Returns the error message of a folder, of one line; fails without an error."""
    with pytest.raises(UserError) as error:
        read_folder(folder, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)
