"""Images on disk: the four arrays of a data set in one file, and what can be wrong with it.

train_images uint8 [N, C, H, W]    train_labels int64 [N]
test_images  uint8 [M, C, H, W]    test_labels  int64 [M]
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

from vaelab.data.splits import Splits
from vaelab.errors import UserError

Arrays = dict[str, np.ndarray]
NAMES = ("train_images", "train_labels", "test_images", "test_labels")
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
        num_classes: Y; otherwise the largest training label plus one.

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
        arrays = {name: file[name] for name in NAMES if name in file}
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
    for name in NAMES:
        if name in header:
            entry = header[name]
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
    if "train_labels" not in arrays:
        zeros = [torch.zeros(len(images), dtype=torch.int64) for images in (train, test)]
        return Splits(train, zeros[0], test, zeros[1], num_classes=0)
    if len(test) and "test_labels" not in arrays:
        raise UserError("has train_labels but no test_labels")
    train_labels = checked_labels("train_labels", arrays["train_labels"], len(train), num_classes)
    classes = num_classes or int(train_labels.max()) + 1
    test_labels = train_labels[:0]
    if len(test):
        test_labels = checked_labels("test_labels", arrays["test_labels"], len(test), classes)
    if classes > max(1000, len(train)):
        raise UserError(
            f"train_labels reach {classes - 1}, too many classes for {len(train)} images"
        )
    return Splits(train, train_labels, test, test_labels, classes)


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


def checked_labels(name: str, labels: np.ndarray, count: int, num_classes: int | None) -> Tensor:
    if not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"{name} are {labels.dtype}, but should be integers")
    if labels.shape != (count,):
        raise UserError(f"{name} have shape {labels.shape}, but should be ({count},)")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= (num_classes or high + 1):
        allowed = f"from 0 to {num_classes - 1}" if num_classes else "0 or more"
        raise UserError(f"{name} reach from {low} to {high}, but should be {allowed}")
    return torch.from_numpy(labels.astype(np.int64))
