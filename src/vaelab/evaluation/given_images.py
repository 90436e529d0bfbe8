"""Images of the user's own for a trained model: read from array files, and brought to its pixels.

Shapes: N images, C x H x W pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from vaelab.data.array_files import read_arrays
from vaelab.data.array_images import Span, convert_images
from vaelab.data.arrays import PARTS
from vaelab.data.on_disk import OnDisk
from vaelab.errors import UserError


@dataclass(frozen=True)
class GivenImages:
    """Images of the user's own, before they are brought to a model's pixels.

    Attributes:
        images: [N, H, W] or [N, C, H, W].
        columns: What is known of each image by name, [N, ...] each; the class is `label`.
        files: The names of their files, if each has its own.
    """

    images: np.ndarray
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    files: Sequence[str] = ()


def read_given_arrays(path: Path, name: str | None = None) -> GivenImages:
    """Reads images, and the columns beside them, from an npz, npy or safetensors file.

    With images in `test_images`, the label is in `test_labels` and any other column in
    `test_NAME`; with `images`, it is in `labels` and NAME; with `x_test`, in `y_test`.

    Args:
        path: The file.
        name: The name of the images' array (default: `images`, or the only array of images).

    Raises:
        UserError: If the file cannot be read, or there is no such array or there are several.
    """
    arrays = {key: values for key, values in read_arrays(path).items() if values.size}
    name = name or sole_image_array(path, arrays)
    if name not in arrays:
        raise UserError(f"array={name}: {path} has {', '.join(arrays) or 'no arrays'}")
    labels = f"y{name[1:]}" if name.startswith("x") else name.replace("images", "labels")
    columns = {}
    if name.endswith("images"):
        prefix = name.removesuffix("images")
        others = tuple(f"{part}_" for part in PARTS if f"{part}_" != prefix)
        columns = {
            key.removeprefix(prefix): values
            for key, values in arrays.items()
            if key.startswith(prefix) and not key.startswith(others) and values.ndim
        }
        columns = {key: v for key, v in columns.items() if key not in ("images", "labels")}
    if labels != name and labels in arrays:
        columns["label"] = arrays[labels]
    return GivenImages(arrays[name], columns)


def sole_image_array(path: Path, arrays: Mapping[str, Any]) -> str:
    """Returns the name of the array of images, `images` if there is one; UserError if several."""
    if "images" in arrays:
        return "images"
    named = [name for name in arrays if name.endswith("_images")]
    found = named or [name for name, values in arrays.items() if values.ndim >= 3]
    if len(found) == 1:
        return found[0]
    if not found:
        raise UserError(f"{path}: has no array of images; its arrays are {', '.join(arrays)}")
    raise UserError(f"{path}: has {', '.join(found)}; say which, as in array={found[-1]}")


def convert_given_images(
    images: np.ndarray | Tensor, shape: Sequence[int], span: Span | None
) -> Tensor | OnDisk:
    """Returns images as uint8 [N, C, H, W], 0 black to 255 white; UserError if they do not fit.

    Args:
        images: [N, H, W] or [N, C, H, W], booleans or numbers.
        shape: (C, H, W), which they must have.
        span: The pixel values that mean black and white; default: 0 and 255.

    Raises:
        UserError: If they have another shape, or a doubtful range.
    """
    array = images.cpu().numpy() if isinstance(images, Tensor) else np.asanyarray(images)
    if array.ndim in (3, 4) and not len(array):
        raise UserError("there are no images")
    full = array[:, None] if array.ndim == 3 else array
    if full.ndim == 4 and full.shape[1:] != tuple(shape):
        raise UserError(
            f"the images are {size_text(full.shape[1:])}, and this model takes {size_text(shape)} "
            "(channels x height x width)"
        )
    if span is not None and not 0 < span[1] - span[0] < np.inf:
        raise UserError(f"span=[{span[0]:g},{span[1]:g}] should rise")
    try:
        return convert_images("images", array, span)
    except UserError as error:
        raise UserError(str(error).replace("data.source.range", "span")) from error


def size_text(shape: Sequence[int]) -> str:
    """Returns a shape as a text, such as `3 x 32 x 32`."""
    return " x ".join(map(str, shape))
