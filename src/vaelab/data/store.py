"""Reading and atomic writing of data set files: `.npz`, `.safetensors` and `.npy`.

`vaelab.data.arrays` describes the arrays in them.
"""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np
from filelock import FileLock
from safetensors.numpy import save_file

from vaelab.data.array_images import Span
from vaelab.data.arrays import build_splits, part_prefixes
from vaelab.data.splits import Splits
from vaelab.errors import UserError

Arrays = dict[str, np.ndarray]
IMAGES = "train_images"
UNREAD = np.empty(0)
"""Placeholder of an array that is not used, and so not read."""
DTYPES = {"BOOL": np.dtype(np.bool_)} | {
    f"{kind.upper()}{8 * size}": np.dtype(f"{kind}{size}")
    for kind, sizes in {"u": (1, 2, 4, 8), "i": (1, 2, 4, 8), "f": (2, 4, 8)}.items()
    for size in sizes
}  # numpy types by their names in safetensors


def load_or_create(path: Path, make: Callable[[], Arrays]) -> Splits:
    """Returns the data set in `path`, memory-mapped; makes and writes it under a lock if absent.

    Writing is atomic, under a file lock `path` with suffix .lock, on which other processes wait.
    Processes that map the same file share its pages.

    Raises:
        UserError: If the file cannot be written or read.
    """
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock")):
                if not path.exists():
                    write_safetensors(path, make())
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    return read_splits(path)


def write_safetensors(path: Path, arrays: Arrays) -> None:
    """Writes arrays as a safetensors file atomically, replacing an older one; takes no lock."""
    with NamedTemporaryFile(dir=path.parent, suffix=".partial", delete=False) as file:
        unfinished = Path(file.name)
    try:
        save_file({name: np.asarray(a, order="C") for name, a in arrays.items()}, unfinished)
        unfinished.chmod(0o644)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def read_splits(path: Path, num_classes: int | None = None, span: Span | None = None) -> Splits:
    """Returns the data set in an npz, safetensors or npy (images alone) file, or raises UserError.

    Args:
        path: The file.
        num_classes: See `vaelab.data.arrays.build_splits`.
        span: See `vaelab.data.arrays.build_splits`.

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
    except Exception as error:  # parsers raise many types for a damaged file
        raise UserError(f"{path}: truncated, or no {path.suffix or '.npz'} file") from error
    try:
        return build_splits(arrays, num_classes, span)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def load_npz(path: Path) -> Arrays:
    """Reads an `.npz` file; with train_images, arrays of no part are left as empty placeholders.

    Without train_images it reads all, for the error message. Raises ValueError if a member with
    the prefix of a part is no array, and UserError if an array has Python objects.
    """
    with np.load(path, allow_pickle=False) as file:
        wanted = filter(has_part_prefix, file.files) if IMAGES in file.files else file.files
        read = {name: load_array(name, partial(file.__getitem__, name)) for name in wanted}
    arrays = {name: a for name, a in read.items() if isinstance(a, np.ndarray)}
    if not all(name in arrays for name in read if has_part_prefix(name)):
        raise ValueError("has members that are no arrays")
    return dict.fromkeys(file.files, UNREAD) | arrays


def load_npy(path: Path) -> Arrays:
    """Returns the array of an `.npy` file as `train_images`, memory-mapped."""
    load = partial(np.load, path, mmap_mode="c", allow_pickle=False)
    return {IMAGES: load_array("the array", load)}


def has_part_prefix(name: str) -> bool:
    """Returns whether a name begins with train_, val_ or test_; other arrays are not used."""
    return name.startswith(part_prefixes())


def load_array(name: str, load: Callable[[], np.ndarray]) -> np.ndarray:
    """Returns `load()`; raises UserError if numpy refuses an array of Python objects."""
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
    """Returns the arrays of a `.safetensors` file as views of the memory-mapped file.

    Raises UserError for a part's array of an unknown type; other such arrays become empty.
    All processes share its pages; the safetensors library's own loader copies. The format is a
    length, a JSON header and the bytes.
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
            if has_part_prefix(name):
                raise UserError(f"{name} are {entry['dtype']}, which is no type for it")
            arrays[name] = UNREAD
            continue
        arrays[name] = pages[start:stop].view(DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return arrays


READERS = {".npz": load_npz, ".safetensors": map_safetensors, ".npy": load_npy}
