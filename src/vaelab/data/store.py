"""Images on disk: the arrays of a data set in one file; `vaelab.data.arrays` says which."""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np
from filelock import FileLock
from safetensors.numpy import save_file

from vaelab.data.arrays import Span, beginnings, splits
from vaelab.data.splits import Splits
from vaelab.errors import UserError

Arrays = dict[str, np.ndarray]
IMAGES = "train_images"
UNREAD = np.empty(0)
"""In place of an array that is of no use."""
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
        unfinished = Path(file.name)
    try:
        save_file({name: np.asarray(a, order="C") for name, a in arrays.items()}, unfinished)
        unfinished.chmod(0o644)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def read(path: Path, num_classes: int | None = None, span: Span | None = None) -> Splits:
    """The data set in an `.npz`, a `.safetensors` or, images alone, an `.npy` file.

    Args:
        path: The file.
        num_classes: See `vaelab.data.arrays.splits`.
        span: See there.

    Raises:
        UserError: If the file cannot be read or its arrays are of the wrong type or shape.
    """
    if not path.exists():
        raise UserError(f"{path}: there is no such file")
    if path.suffix not in READERS:
        raise UserError(f"{path}: should be an {', '.join(READERS)} file")
    try:
        arrays = READERS[path.suffix](path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:  # whatever a zip, JSON or array parser makes of a damaged file
        raise UserError(f"{path}: truncated, or no {path.suffix or '.npz'} file") from error
    try:
        return splits(arrays, num_classes, span)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def load_npz(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as file:
        wanted = filter(is_read, file.files) if IMAGES in file.files else file.files
        read = {name: member(name, partial(file.__getitem__, name)) for name in wanted}
    arrays = {name: a for name, a in read.items() if isinstance(a, np.ndarray)}
    if not all(name in arrays for name in read if is_read(name)):
        raise ValueError("has members that are no arrays")
    return dict.fromkeys(file.files, UNREAD) | arrays


def load_npy(path: Path) -> Arrays:
    load = partial(np.load, path, mmap_mode="c", allow_pickle=False)
    return {IMAGES: member("the array", load)}


def is_read(name: str) -> bool:
    """Whether an array of this name is of use."""
    return name.startswith(beginnings())


def member(name: str, load: Callable[[], np.ndarray]) -> np.ndarray:
    """An array; raises UserError if it is of Python's objects."""
    try:
        return load()
    except ValueError as error:
        if not ("allow_pickle" in str(error) or "Python objects" in str(error)):
            raise
        raise UserError(
            f"{name} holds Python objects, which are not read, for they could run code; save it "
            f"as numbers or as texts, such as {name}.astype(str)"
        ) from error


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
        if name == "__metadata__":
            continue
        start, stop = entry["data_offsets"]
        if entry["dtype"] not in DTYPES:
            if is_read(name):
                raise UserError(f"{name} are {entry['dtype']}, which is no type for it")
            arrays[name] = UNREAD
            continue
        arrays[name] = pages[start:stop].view(DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return arrays


READERS = {".npz": load_npz, ".safetensors": map_safetensors, ".npy": load_npy}
