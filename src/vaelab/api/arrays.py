"""What is given to `fit` as images and labels, as overrides that choose data and as arrays."""

import hashlib
import io
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaelab.api.overrides import override_value
from vaelab.commands.arguments import choices_in
from vaelab.commands.config_folders import CONF
from vaelab.data import Images, Numbers
from vaelab.data.array_columns import convert_classes
from vaelab.data.array_images import find_span
from vaelab.data.arrays import order_name, usual_names
from vaelab.data.splits import Splits
from vaelab.data.tables import TABLES
from vaelab.errors import UserError, first_line, spelling_hint
from vaelab.files import checksums
from vaelab.files.atomic import atomic_file, make_folder
from vaelab.files.npz import write_npz
from vaelab.observations import check_picture
from vaelab.runs import naming

Arrays = dict[str, np.ndarray]
ParquetFile = bytes
"""The content of a Parquet file."""
KEPT = (
    *("batch_size", "val_size", "test_size", "pixels", "split_seed", "columns"),
    *("balance", "flip", "shift", "in_memory", "window"),
)
"""Settings of a data module that stay as they are where it is given to `fit`."""
NUMBERS = ("vectors", "signals")
"""The choices of `data` whose arrays are numbers."""


def named_data_overrides(images: str | Path) -> list[str]:
    """Returns the overrides that choose data by name, such as `mnist`, or by the path of a file.

    Raises:
        UserError: If there is no such name and no such file.
    """
    names = choices_in(CONF / "data")
    path = Path(images)
    if isinstance(images, str) and images in names:
        return [f"data={images}"]
    if path.is_dir():
        return ["data=folder", f"data.source.path={naming.quote(str(path.absolute()))}"]
    if path.exists():
        kind = "vectors" if path.suffix in TABLES else "arrays"
        return [f"data={kind}", f"data.source.path={naming.quote(str(path.absolute()))}"]
    hint = spelling_hint(str(images), names)
    raise UserError(f"{images}: there is no such file, and no such data; {hint}")


def collect_arrays(images: Any, labels: Any, data: str | None = None) -> Arrays:
    """Returns the arrays of a data set by name, as `vaelab.data.arrays` describes them.

    Args:
        images: An array, tensor or list of images or of numbers; or a dictionary of arrays by name,
            such as `train_images` and `test_labels`.
        labels: Labels of the images, if they are not in `images`.
        data: The choice of data, `vectors` or `signals` if they are numbers.

    Raises:
        UserError: If they are no arrays, or labels are given twice.
    """
    if isinstance(images, torch.utils.data.DataLoader):
        raise UserError("images: a DataLoader; give its data set, as in vaelab.fit(loader.dataset)")
    if isinstance(images, tuple) and len(images) == 2 and np.ndim(images[1]) != np.ndim(images[0]):
        raise UserError("images: a pair; give two arguments, as in vaelab.fit(images, labels)")
    if isinstance(images, Mapping):
        refuse_labels(labels, "the dictionary")
        return {str(name): to_numpy(str(name), values) for name, values in images.items()}
    values = to_numpy("images", images)
    found = {"train_x" if data in NUMBERS else "train_images": values}
    if labels is not None:
        found["train_labels"] = to_numpy("labels", labels)
        count = len(values) if values.ndim else 0
        if found["train_labels"].ndim == 0 or len(found["train_labels"]) != count:
            shape = list(found["train_labels"].shape)
            raise UserError(f"labels: there are {count} images, and labels are {shape}")
    return found


def check_pictures(arrays: Arrays) -> None:
    """Raises UserError if the training images are rows of numbers, which `data="vectors"` takes."""
    shape = [*np.shape(arrays.get("train_images", ()))]
    if len(shape) == 2:
        raise UserError(
            f'images: {shape} are rows of numbers; give data="vectors", or images as [N, H, W]'
        )


def check_choice(data: str | None, may_be: bool, images: str) -> None:
    """Raises UserError if data of a kind are chosen, and the images are data of another one.

    Args:
        data: The choice, or None.
        may_be: Whether the images may be of that kind.
        images: What they are, for the message.
    """
    if data is not None and not may_be:
        raise UserError(f'data="{data}": the images are given already, as {images}; leave it out')


def refuse_labels(labels: Any, where: str) -> None:
    """Raises UserError if labels are given beside those in `images`."""
    if labels is not None:
        raise UserError(f"labels: they are in {where} of images already")


def module_settings(data: Images) -> list[str]:
    """Returns overrides that choose arrays as those of a data module, and its settings."""
    if isinstance(data, Numbers):
        chosen = [f"data={data.noun}", f"data.standardize={str(data.standardize).lower()}"]
    else:
        chosen = ["data=arrays", range_override(data.splits)]
    return chosen + [f"data.{n}={override_value(n, getattr(data, n))}" for n in KEPT]


def range_override(splits: Splits) -> str:
    """Returns the override with the range of the images that `split_arrays` gives."""
    scale = splits.pixel_scale
    span = scale.whole if scale.is_default else scale.floats
    ends = [int(end) if end.is_integer() else end for end in span]
    return f"data.source.range={override_value('range', ends)}"


def module_arrays(data: Images) -> Arrays:
    """Returns the arrays of a data module by name, numbers as they were in their file.

    Raises:
        UserError: If they are not in memory.
    """
    if isinstance(data, Numbers):
        return split_arrays(data.stored_splits, "x")
    return split_arrays(data.splits)


def split_arrays(splits: Splits, kind: str = "images") -> Arrays:
    """Returns the arrays of a data set by name, as `vaelab.data.arrays` describes them.

    Images on another scale than the default are restored to it, so that a model knows the scale.

    Args:
        splits: The data set.
        kind: `images`, or `x` of numbers.

    Raises:
        UserError: If its images are not in memory.
    """
    arrays = {}
    for part, images in splits.parts.items():
        if not isinstance(images, Tensor):
            raise UserError("images: of these give the name of the data set, or the file")
        if kind == "images" and not splits.pixel_scale.is_default:
            images = splits.pixel_scale.restore(images.float() / 255)
        arrays[f"{part}_{kind}"] = images.numpy()
    for name in splits.column_names:
        column = splits.column(name)
        array = "labels" if name == "label" else name
        for part in splits.parts:
            arrays[f"{part}_{array}"] = getattr(column, part).numpy()
        if column.classes and column.names:
            arrays[order_name(array)] = np.asarray(column.names)
    return arrays


def to_numpy(name: str, values: Any) -> np.ndarray:
    """Returns a tensor, array, picture or list of them as a NumPy array; UserError for others."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    check_picture(values, name)
    if isinstance(values, (list, tuple)) and len(values) and not np.isscalar(values[0]):
        parts = [to_numpy(name, value) for value in values]
        if any(part.shape != parts[0].shape for part in parts):
            shapes = sorted({part.shape for part in parts})[:2]
            raise UserError(f"{name}: some are {shapes[0]} and some {shapes[1]}; one shape for all")
        return np.stack(parts)
    array = np.asarray(values)
    if isinstance(values, (list, tuple)) and array.dtype.kind in "UO":
        is_text = [isinstance(value, str) for value in values]
        if any(is_text) and not all(is_text):
            row = is_text.index(False)
            raise UserError(f"{name}[{row}] is {values[row]!r} among texts; each should be a text")
    if array.dtype == object and all(isinstance(value, str) for value in array.flat):
        return array.astype(str)  # a column of texts of pandas
    if array.dtype == object:
        raise UserError(f"{name}: a {type(values).__name__} is no array of numbers or texts")
    return array


def float_range(arrays: Arrays) -> list[str]:
    """Returns an override with the range of floats that fill [0, 1] or [-1, 1]; else none.

    See `find_span`, which the source of arrays asks about all others.
    """
    usual = usual_names(arrays)
    train = [values for name, values in arrays.items() if usual[name] == "train_images"]
    span, _ = find_span(train[0]) if len(train) == 1 else (None, [])
    fills = span in ((0, 1), (-1, 1))
    return [f"data.source.range={override_value('range', list(span))}"] if span and fills else []


def is_table(images: Any) -> bool:
    """Returns whether images are a pandas DataFrame, of which each row is a vector."""
    import pandas as pd  # slow to import

    return isinstance(images, pd.DataFrame)


def table_file(table: Any, labels: Any) -> tuple[ParquetFile, list[str]]:
    """Returns a DataFrame as the content of a Parquet file, and overrides that choose its columns.

    Its index is left out. Labels become a column `label`.

    Raises:
        UserError: If labels are given and there is such a column, or another number of them; or if
            two columns have one name, or one has values that a file cannot have.
    """
    own = ["data=vectors"]
    table = table.reset_index(drop=True)
    table.columns = table.columns.map(str)
    if labels is not None:
        if "label" in table.columns:
            refuse_labels(labels, "the column label")
        values = to_numpy("labels", labels)
        if not values.ndim or len(values) != len(table):
            count = len(values) if values.ndim else 1
            raise UserError(f"labels: there are {len(table)} rows, and {count} labels")
        table["label"] = convert_classes("labels", values, len(table))
        own.append("data.source.label=label")
    if twice := [name for name, count in Counter(table.columns).items() if count > 1]:
        raise UserError(f"images: the table has several columns {twice[0]}")
    file = io.BytesIO()
    try:
        table.to_parquet(file, index=False)
    except Exception as error:  # of pandas and pyarrow, of many types
        raise UserError(f"images: the table cannot be kept ({first_line(error)})") from error
    return file.getvalue(), own


def file_name(kept: Arrays | ParquetFile) -> str:
    """Returns the name of the file that keeps arrays, or a table, with a digest of them."""
    if isinstance(kept, bytes):
        return f"table-{hashlib.sha256(kept).hexdigest()[:16]}.parquet"
    return f"arrays-{checksums.arrays_digest(kept)[:16]}.npz"


def write_kept(path: Path, kept: Arrays | ParquetFile) -> bool:
    """Writes arrays as an `.npz` file, or a table; returns False if the file is there already."""
    if os.path.exists(path):
        return False
    make_folder(path.parent)
    with atomic_file(path) as file:
        if isinstance(kept, bytes):
            file.write(kept)
        else:
            write_npz(file, kept)
    return True
