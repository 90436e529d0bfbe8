"""Images and numbers of the user's own for a trained model: read from files, and made its x.

Shapes: N images, C x H x W pixels; or N vectors [C] or signals [C, L] of numbers.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaelab.data.array_files import read_arrays
from vaelab.data.array_images import Span, convert_images, pixel_range, range_error_text
from vaelab.data.arrays import PARTS, usual_names
from vaelab.data.number_files import check_finite
from vaelab.data.on_disk import OnDisk
from vaelab.data.tables import (
    TABLES,
    column_classes,
    column_numbers,
    column_to_condition_on,
    is_class_column,
    read_frame,
    table_decimal,
)
from vaelab.data.wrong_rows import first_wrong_row
from vaelab.elbo import ELBO
from vaelab.errors import DamagedFileError, UserError
from vaelab.files.regular import check_regular_file
from vaelab.inference import as_tensor
from vaelab.observations import PixelScale, Units, table_columns, x_text


@dataclass(frozen=True)
class GivenImages:
    """Images of the user's own, before they are brought to a model's pixels; or numbers.

    Attributes:
        images: [N, H, W], [N, C, H, W] or [N, H, W, C]; of numbers [N, C], [N, C, L] or [N, L].
        columns: What is known of each image by name, [N, ...] each; the class is `label`.
        files: The names of their files, if each has its own.
        remarks: Phrases on what was done to read them.
    """

    images: np.ndarray
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    files: Sequence[str] = ()
    remarks: Sequence[str] = ()


def read_given_arrays(
    path: Path, name: str | None = None, has_numbers: bool = False
) -> GivenImages:
    """Reads images, and the columns beside them, from an npz, npy or safetensors file.

    With images in `test_images`, the label is in `test_labels` and any other column in
    `test_NAME`; with `images`, it is in `labels` and NAME; with `x_test`, in `y_test`. Vectors and
    signals are in `test_x` or `x`, and the others likewise.

    Args:
        path: The file.
        name: The name of the images' array (default: `images`, or the only array of images).
        has_numbers: Whether to read vectors or signals in place of images.

    Raises:
        UserError: If the file cannot be read, or there is no such array or there are several.
    """
    word = "x" if has_numbers else "images"
    arrays = {key: values for key, values in read_arrays(path).items() if values.size}
    name = name or sole_array(path, arrays, word)
    if name not in arrays:
        raise UserError(f"array={name}: {path} has {', '.join(arrays) or 'no arrays'}")
    columns = {}
    has_prefix = name == word or name.endswith(f"_{word}" if has_numbers else word)
    prefix = name.removesuffix(word)
    possible = [f"{prefix}labels"] if has_prefix else []
    possible.append(f"y{name[1:]}" if name.startswith("x") else name.replace("images", "labels"))
    usual = usual_names(arrays)
    possible += [n for n in arrays if usual[n] == usual[name].replace("images", "labels")]
    labels = next((some for some in possible if some in arrays and some != name), name)
    if has_prefix:
        others = tuple(f"{part}_" for part in PARTS if f"{part}_" != prefix)
        columns = {
            key.removeprefix(prefix): values
            for key, values in arrays.items()
            if key.startswith(prefix) and not key.startswith(others) and values.ndim
        }
        columns = {key: v for key, v in columns.items() if key not in (word, "labels")}
    if labels != name:
        columns["label"] = arrays[labels]
    return GivenImages(arrays[name], columns)


def sole_array(path: Path, arrays: Mapping[str, Any], word: str) -> str:
    """Returns the name of the array of images, or of x; that of this word if there is one.

    Raises:
        UserError: If there is none, or there are several.
    """
    if word in arrays:
        return word
    named = [name for name in arrays if name.endswith(f"_{word}")]
    axes = 3 if word == "images" else 2
    found = named or [name for name, values in arrays.items() if values.ndim >= axes]
    if len(found) == 1:
        return found[0]
    if not found:
        what = "images" if word == "images" else "vectors or signals"
        held = f"its arrays are {', '.join(arrays)}" if arrays else "it is empty"
        raise UserError(f"{path}: has no array of {what}; {held}")
    raise UserError(f"{path}: has {', '.join(found)}; say which, as in array={found[-1]}")


def read_given_numbers(
    path: Path,
    units: Units,
    name: str | None = None,
    label: str | None = None,
    told: Sequence[str] = (),
) -> GivenImages:
    """Reads vectors from a table, or vectors or signals from an array file, and their labels.

    Of a table these are the columns of the training, by name and in any order; others are not used,
    but for the label and what the model is told.

    Args:
        path: The file; a table is one of `TABLES`.
        units: Have the names of the columns.
        name: See `read_given_arrays`; of arrays only.
        label: The column of a table that is the label (default: `label`, if there is one).
        told: Names of the columns that the model is conditional on.

    Raises:
        UserError: If the file cannot be read, or a column or number is missing or no number.
    """
    if path.suffix not in TABLES:
        return read_given_arrays(path, name, has_numbers=True)
    try:
        check_regular_file(path)
        table = read_frame(path)
        if missing := [column for column in units.names if column not in table.columns]:
            raise UserError(
                f"has no column {', '.join(missing[:4])}{', ...' if len(missing) > 4 else ''}, as "
                f"the training had; its columns are {', '.join(table.columns)}"
            )
        seen = [column for column in told if column != "label" and column in table.columns]
        numbers = [column for column in seen if not is_class_column(table[column])]
        decimal = table_decimal(table, [*units.names, *numbers])
        x = np.stack([column_numbers(column, table[column], decimal) for column in units.names], 1)
        label = label or "label"
        is_given = label in table.columns and label not in units.names
        columns = {"label": column_classes(label, table[label])} if is_given else {}
        for column in seen:
            columns[column] = column_to_condition_on(column, table[column], decimal)
    except DamagedFileError:
        raise
    except UserError as error:
        told, _, _ = str(error).partition("; data.source.")  # settings of the training
        raise UserError(told if told.startswith(str(path)) else f"{path}: {told}") from error
    used = {*units.names, *columns, *([label] if is_given else [])}
    unused = [column for column in table.columns if column not in used]
    return GivenImages(x, columns, remarks=[f"not used: {', '.join(unused)}"] if unused else [])


def convert_given(images: Any, model: ELBO, span: Span | None = None) -> Tensor | OnDisk:
    """Returns images as uint8 [N, C, H, W], 0 to 255; or numbers as float32 in the model's units.

    Numbers 0 and 1 of a model of bits are uint8 0 and 255, as pixels.

    Args:
        images: Images [N, H, W], [N, C, H, W] or [N, H, W, C], vectors [N, C] or signals [N, C, L]
            or [N, L]: booleans or numbers.
        model: Says what fits.
        span: The pixel values that mean black and white; default: those of the model's data, see
            `PixelScale`.

    Raises:
        UserError: If they have another shape, are empty or not finite, or out of range.
    """
    if model.units is not None:
        images = table_columns(images, model.units.names)
    if isinstance(images, np.ndarray):  # a mapped file stays one
        array = images
    elif isinstance(images, (list, tuple)) and not images:
        array = np.empty((0, 1, 1))
    else:
        found = as_tensor(images, "images").cpu()
        array = (found.float() if found.dtype == torch.bfloat16 else found).numpy()
    if array.ndim > 1 and not len(array):
        raise UserError(f"there are no {'images' if model.units is None else 'rows'}")
    if model.units is None:
        return convert_given_images(array, model.x_shape, span, model.pixel_scale)
    if span is not None:
        raise UserError("range is for images, and numbers are as in the file of the training")
    return convert_given_numbers(array, model.x_shape, model.units, model.pixels)


def convert_given_numbers(
    array: np.ndarray, shape: Sequence[int], units: Units, pixels: str
) -> Tensor:
    """Returns vectors or signals as `convert_given` does; raises UserError if they do not fit."""
    full = array[:, None] if array.ndim == len(shape) > 1 else array
    if full.dtype.kind not in "biuf":
        raise UserError(f"the numbers are {array.dtype}")
    if full.shape[1:] != tuple(shape):
        raise UserError(
            f"the numbers have shape {array.shape}, and this model takes {x_text(shape)}"
        )
    check_finite("the numbers", full, units.names)
    if pixels == "binary":
        if (row := first_wrong_row((full != 0) & (full != 1))) is not None:
            raise UserError(f"row {row}: this model takes numbers 0 and 1")
        return torch.from_numpy(full.astype(np.uint8) * 255)
    x = units.standardize(torch.from_numpy(full.astype(np.float64)), len(shape))
    if (row := first_wrong_row(~np.isfinite(x.numpy()))) is not None:
        raise UserError(f"row {row}: has numbers too large for single precision")
    return x


def arrange_given(array: np.ndarray, shape: Sequence[int]) -> tuple[np.ndarray, list[str]]:
    """Returns images as [N, C, H, W], and a phrase if their channels came last.

    Args:
        array: [N, H, W], [N, C, H, W] or [N, H, W, C]; other shapes are returned as they are.
        shape: (C, H, W), which they must have.

    Raises:
        UserError: If they have another shape.
    """
    full = array[:, None] if array.ndim == 3 else array
    channels, height, width = shape
    if full.ndim != 4 or full.shape[1:] == tuple(shape):
        return full, []
    if full.shape[1:] == (height, width, channels):
        said = f"channels last, as images of shape {full.shape} say"
        return np.ascontiguousarray(full.transpose(0, 3, 1, 2)), [said]
    raise UserError(
        f"the images are {size_text(full.shape[1:])}, and this model takes {size_text(shape)} "
        "(channels x height x width)"
    )


def convert_given_images(
    array: np.ndarray, shape: Sequence[int], span: Span | None, scale: PixelScale
) -> Tensor | OnDisk:
    """Returns images as uint8 [N, C, H, W], 0 black to 255 white; UserError if they do not fit.

    Args:
        array: Booleans or numbers, see `arrange_given`.
        shape: (C, H, W), which they must have.
        span: The pixel values that mean black and white; default: those of the scale.
        scale: That of the data that the model was trained on.

    Warns of images that are nearly black by the scale, see `PixelScale.doubt`.

    Raises:
        UserError: If they have another shape, or numbers outside of the range.
    """
    full, _ = arrange_given(array, shape)
    if span is not None and not 0 < span[1] - span[0] < np.inf:
        raise UserError(f"span=[{span[0]:g},{span[1]:g}] should rise")
    if span is None and full.ndim == 4 and full.dtype.kind in "uif":
        are_floats = full.dtype.kind == "f"
        is_byte = full.dtype == np.uint8  # of which a large file is not read to its end
        low, high = pixel_range(full) if is_byte else (float(full.min()), float(full.max()))
        span = scale.span(are_floats)
        if np.isfinite([low, high]).all():
            try:
                scale.check_reach(low, high, are_floats)
                if doubt := scale.doubt(low, high, are_floats):
                    warnings.warn(doubt, stacklevel=2)
            except UserError as error:
                if not scale.is_default:
                    raise
                told = range_error_text("images", full.dtype, low, high)
                raise UserError(told.replace("data.source.range", "span")) from error
    try:
        return convert_images("images", full, span)
    except UserError as error:
        raise UserError(str(error).replace("data.source.range", "span")) from error


def size_text(shape: Sequence[int]) -> str:
    """Returns a shape as a text, such as `3 x 32 x 32`."""
    return " x ".join(map(str, shape))
