"""Images on disk: the arrays of a data set in one file, and what can be wrong with it.

train_images uint8 [N, C, H, W]    train_labels int64 [N]
test_images  uint8 [M, C, H, W]    test_labels  int64 [M]

and what else is known of each image, under any other name: train_NAME and test_NAME, a class as
integers [N], or numbers as floats [N] or [N, W].
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np
import torch
from filelock import FileLock
from safetensors.numpy import save_file
from torch import Tensor

from vaelab.data.columns import Column
from vaelab.data.splits import Splits
from vaelab.errors import UserError

Arrays = dict[str, np.ndarray]
PARTS = ("train_", "test_")  # with which the name of an array begins
TAKEN = ("images", "labels")  # names that are no other columns
SMALLEST = 8  # pixels a side
DTYPES = {"BOOL": np.dtype(np.bool_)} | {
    f"{kind.upper()}{8 * size}": np.dtype(f"{kind}{size}")
    for kind, sizes in {"u": (1, 2, 4, 8), "i": (1, 2, 4, 8), "f": (2, 4, 8)}.items()
    for size in sizes
}  # of safetensors, in numpy's words


def prepared(path: Path, make: Callable[[], Arrays]) -> Splits:
    """The data set in `path`, made first if there is no such file, and mapped into memory.

    Processes that map the same file share its pages. Two that make it at once do no harm: one
    waits for the other, and the file appears whole or not at all.
    """
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock")):
                if not path.exists():
                    write(path, make())
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    return read(path)


def write(path: Path, arrays: Arrays) -> None:
    """Saves arrays as safetensors, whole or not at all."""
    with NamedTemporaryFile(dir=path.parent, suffix=".partial", delete=False) as file:
        partial = Path(file.name)
    try:
        save_file({name: np.asarray(a, order="C") for name, a in arrays.items()}, partial)
        partial.chmod(0o644)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read(path: Path, num_classes: int | None = None) -> Splits:
    """The data set in an `.npz` or `.safetensors` file.

    Args:
        path: The file; images may also be [N, H, W], the test part and the labels absent.
        num_classes: Of the labels; otherwise the largest training label plus one.

    Raises:
        UserError: If the file cannot be read or its arrays are of the wrong type or shape.
    """
    if not path.exists():
        raise UserError(f"{path}: there is no such file")
    if path.suffix not in READERS:
        raise UserError(f"{path}: should be an .npz or a .safetensors file")
    try:
        arrays = READERS[path.suffix](path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UserError:
        raise
    except Exception as error:  # whatever a zip, JSON or array parser makes of a damaged file
        raise UserError(f"{path}: truncated, or no {path.suffix or '.npz'} file") from error
    try:
        return checked(arrays, num_classes)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def load_npz(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files if name.startswith(PARTS)}
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise ValueError("has members that are no arrays")
    return arrays


def map_safetensors(path: Path) -> Arrays:
    """The arrays as views of the file; reading them loads pages that all processes share.

    The library's own loader copies. The format is a length, a JSON header and the bytes.
    """
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > path.stat().st_size:
            raise ValueError("header is longer than the file")
        header = json.loads(file.read(size))
    pages = np.memmap(path, dtype=np.uint8, mode="c", offset=8 + size)
    arrays = {}
    for name, entry in header.items():
        if name.startswith(PARTS):
            start, stop = entry["data_offsets"]
            if entry["dtype"] not in DTYPES:
                raise UserError(f"{path}: {name} are {entry['dtype']}, which is no type for it")
            arrays[name] = pages[start:stop].view(DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return arrays


READERS = {".npz": load_npz, ".safetensors": map_safetensors}


def checked(arrays: Arrays, num_classes: int | None) -> Splits:
    """Arrays as Splits; raises UserError where they are not such a data set."""
    if "train_images" not in arrays:
        raise UserError("has no array train_images")
    train = checked_images("train_images", arrays["train_images"])
    test = train[:0]
    if "test_images" in arrays and len(arrays["test_images"]):
        test = checked_images("test_images", arrays["test_images"])
        if test.shape[1:] != train.shape[1:]:
            raise UserError(
                f"test_images are {tuple(test.shape[1:])} and train_images {tuple(train.shape[1:])}"
            )
    names = dict.fromkeys(name.partition("_")[2] for name in arrays)
    counts = len(train), len(test)
    if "label" in names:
        raise UserError("has a column label, which is the name of what train_labels hold")
    columns = {n: checked_column(n, arrays, *counts) for n in names if n not in TAKEN}
    if "train_labels" not in arrays:
        zeros = [torch.zeros(count, dtype=torch.int64) for count in counts]
        return Splits(train, zeros[0], test, zeros[1], num_classes=0, columns=columns)
    labels = checked_classes("labels", arrays, *counts, num_classes)
    return Splits(train, labels.train, test, labels.test, labels.classes, columns=columns)


def checked_images(name: str, images: np.ndarray) -> Tensor:
    if images.dtype == np.bool_:
        images = images.astype(np.uint8) * 255
    if images.dtype != np.uint8:
        raise UserError(f"{name} are {images.dtype}, but should be uint8 from 0 to 255")
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4:
        raise UserError(
            f"{name} have shape {images.shape}, but should be (N, H, W) or (N, C, H, W)"
        )
    if images.shape[-1] in (1, 3, 4) and images.shape[1] >= SMALLEST:
        raise UserError(f"{name} have shape {images.shape}, channels last; should be (N, C, H, W)")
    if not len(images):
        raise UserError(f"{name} is empty")
    if min(images.shape[-2:]) < SMALLEST or images.shape[1] == 0:
        height, width = images.shape[-2:]
        raise UserError(
            f"{name} are too small: {height} x {width} pixels, at least {SMALLEST} x {SMALLEST} "
            "are needed"
        )
    return torch.from_numpy(images)


def checked_column(name: str, arrays: Arrays, train: int, test: int) -> Column:
    """Classes, or numbers, of `train` and `test` images."""
    values = arrays.get(f"train_{name}")
    if values is None or (test and f"test_{name}" not in arrays):
        one, other = PARTS if values is not None else PARTS[::-1]
        raise UserError(f"has {one}{name} but no {other}{name}")
    if not np.issubdtype(values.dtype, np.floating):
        return checked_classes(name, arrays, train, test)
    parts = checked_numbers(f"train_{name}", values, train), torch.empty(0, 1)
    if test:
        parts = parts[0], checked_numbers(f"test_{name}", arrays[f"test_{name}"], test)
        if parts[0].shape[1] != parts[1].shape[1]:
            widths = f"{parts[1].shape[1]} wide and train_{name} {parts[0].shape[1]}"
            raise UserError(f"test_{name} are {widths}")
    return Column(*parts)


def checked_numbers(name: str, values: np.ndarray, count: int) -> Tensor:
    """Floats [count, W]."""
    if values.ndim not in (1, 2) or len(values) != count or values.size == 0:
        raise UserError(
            f"{name} have shape {values.shape}, but should be ({count},) or ({count}, W)"
        )
    if not np.issubdtype(values.dtype, np.floating) or not np.isfinite(values).all():
        raise UserError(f"{name} should be finite floats, as train_{name.partition('_')[2]} are")
    return torch.from_numpy(values.reshape(count, -1).astype(np.float32))


def checked_classes(
    name: str, arrays: Arrays, train: int, test: int, num_classes: int | None = None
) -> Column:
    """Classes of `train` and `test` images, as many as there are in training."""
    if test and f"test_{name}" not in arrays:
        raise UserError(f"has train_{name} but no test_{name}")
    values = checked_labels(f"train_{name}", arrays[f"train_{name}"], train, num_classes)
    classes = num_classes or int(values.max()) + 1
    if classes > max(1000, train):
        raise UserError(
            f"train_{name} reach {classes - 1}, too many classes for {train} images; numbers "
            "are floats"
        )
    others = values[:0]
    if test:
        others = checked_labels(f"test_{name}", arrays[f"test_{name}"], test, classes)
    return Column(values, others, classes)


def checked_labels(name: str, labels: np.ndarray, count: int, num_classes: int | None) -> Tensor:
    if labels.dtype == np.bool_:
        labels = labels.astype(np.uint8)
    if not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"{name} are {labels.dtype}, but should be integers")
    if labels.shape != (count,):
        raise UserError(f"{name} have shape {labels.shape}, but should be ({count},)")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= (num_classes or high + 1):
        allowed = f"from 0 to {num_classes - 1}" if num_classes else "0 or more"
        raise UserError(f"{name} reach from {low} to {high}, but should be {allowed}")
    return torch.from_numpy(labels.astype(np.int64))
