"""Reading and atomic writing of data set files: `.npz`, `.safetensors` and `.npy`.

`vaelab.data.arrays` describes the arrays in them.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from safetensors.numpy import save

from vaelab import checksums
from vaelab.atomic_files import atomic_file, explain_write_errors, make_folder
from vaelab.data.array_images import Span
from vaelab.data.arrays import build_splits, part_prefixes
from vaelab.data.splits import Splits
from vaelab.errors import DamagedFileError, UserError

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
    Processes that map the same file share its pages. The file's checksum is verified.

    Raises:
        UserError: If the file cannot be written or read, or is damaged.
    """
    if not path.exists():
        make_folder(path.parent)
        with explain_write_errors(path), FileLock(path.with_suffix(".lock")):
            if not path.exists():
                write_safetensors(path, make())
    try:
        check_arrays(path)
    except DamagedFileError as error:
        raise DamagedFileError(f"{error}; delete it, and it is made anew") from error
    return read_splits(path)


def check_arrays(path: Path) -> None:
    """Raises DamagedFileError if a safetensors file has other arrays than were written to it.

    Passes files without a checksum, which other programs and earlier versions wrote, and files
    that have no such format.
    """
    try:
        header, _ = read_header(path)
        written = header.get("__metadata__", {}).get(checksums.NAME)
        whole = written is None or written == checksums.arrays_digest(map_safetensors(path))
    except Exception:  # many types; read_splits says what is wrong
        return
    if not whole:
        raise DamagedFileError(f"{path}: damaged, for its checksum differs")


def write_safetensors(path: Path, arrays: Arrays) -> None:
    """Writes arrays as a safetensors file with their checksum, atomically; takes no lock."""
    with atomic_file(path) as file:
        file.write(safetensors_bytes(arrays))


def safetensors_bytes(arrays: Arrays) -> bytes:
    """Returns arrays as the bytes of a safetensors file, with their checksum in its metadata."""
    ordered = {name: np.asarray(a, order="C") for name, a in arrays.items()}
    return save(ordered, {checksums.NAME: checksums.arrays_digest(ordered)})


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
    header, size = read_header(path)
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


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Returns the header of a safetensors file and its length; ValueError if there is none."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > path.stat().st_size:
            raise ValueError("header is longer than the file")
        return json.loads(file.read(size)), size


READERS = {".npz": load_npz, ".safetensors": map_safetensors, ".npy": load_npy}
