"""Readers of `.npz`, `.safetensors` and `.npy` files that refuse damaged ones.

A name begins with its part: train_, val_ or test_; see `vaelab.data.arrays`.
"""

import json
import zipfile
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from safetensors import safe_open

from vaelab.data.arrays import CLASS_NAMES, part_prefixes, usual_names
from vaelab.errors import DamagedFileError, UserError
from vaelab.files.regular import check_regular_file

Arrays = dict[str, np.ndarray]
IMAGES = "train_images"
UNREAD = np.empty(0)
"""Placeholder of an array that is not used, and so not read."""
DTYPES = {"BOOL": np.dtype(np.bool_)} | {
    f"{kind.upper()}{8 * size}": np.dtype(f"{kind}{size}")
    for kind, sizes in {"u": (1, 2, 4, 8), "i": (1, 2, 4, 8), "f": (2, 4, 8)}.items()
    for size in sizes
}  # numpy types by their names in safetensors


def read_arrays(path: Path) -> Arrays:
    """Reads the arrays of an npz, safetensors or npy file; arrays of no part may be empty.

    Raises:
        UserError: If there is no such file, or it cannot be read or is damaged; DamagedFileError if
            it is damaged.
    """
    check_regular_file(path)
    if path.suffix not in READERS:
        raise UserError(f"{path}: should be an {', '.join(READERS)} file")
    try:
        if not path.stat().st_size:  # reading some empty files of /proc waits
            raise ValueError("is empty")
        arrays = READERS[path.suffix](path)
        check_booleans(arrays)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except DamagedFileError as error:
        raise DamagedFileError(f"{path}: damaged, {error}") from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:  # parsers raise many types for a damaged file
        raise DamagedFileError(f"{path}: damaged, truncated, or no {path.suffix} file") from error
    return arrays


def check_booleans(arrays: Arrays) -> None:
    """Raises DamagedFileError if a boolean array of a part has other bytes than 0 and 1."""
    usual = usual_names(arrays)
    for name, array in arrays.items():
        is_used = array.dtype == np.bool_ and has_part_prefix(usual[name]) and array.size
        if is_used and array.view(np.uint8).max() > 1:
            raise DamagedFileError(f"{name} are booleans with other bytes than 0 and 1")


def load_npz(path: Path, names: Collection[str] = ()) -> Arrays:
    """Reads an `.npz` file; with images, arrays of no part become empty, except names of classes.

    Without images, see `usual_names`, it reads all, for the error message. Every array is read to
    the end of its member, where its checksum is compared; numpy's own loader stops before it.

    Args:
        path: The file.
        names: The arrays to read; default: see above. Others are placeholders.

    Raises:
        DamagedFileError: If two members have one name, or one goes on behind its array.
        UserError: If an array has Python objects.
        ValueError: If a member that should be an array is none.
    """
    with zipfile.ZipFile(path) as archive:
        members: dict[str, zipfile.ZipInfo] = {}
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name in members:
                raise DamagedFileError(f"it has two arrays {name}")
            members[name] = member
        wanted: Iterable[str] = names or members
        usual = usual_names(members)
        if IMAGES in usual.values() and not names:
            wanted = [name for name in members if has_part_prefix(usual[name])]
        read = {name: read_member(archive, name, members[name]) for name in wanted}
        for name in members.keys() - read.keys() if not names else ():
            if name.startswith(CLASS_NAMES):
                with suppress(UserError):  # of Python objects, which are left
                    read[name] = read_member(archive, name, members[name])
    return dict.fromkeys(members, UNREAD) | read


def read_member(archive: zipfile.ZipFile, name: str, member: zipfile.ZipInfo) -> np.ndarray:
    """Reads an array of an `.npz` file; a member of no part that is no array gives a placeholder.

    Raises as `load_npz` does.
    """
    magic = npy_format.MAGIC_PREFIX
    with archive.open(member) as stream:
        if not has_part_prefix(name) and stream.read(len(magic)) != magic:
            return UNREAD
    with archive.open(member) as stream:
        array = load_array(name, partial(npy_format.read_array, stream, allow_pickle=False))
        if stream.read(1):  # also compares the checksum
            raise DamagedFileError(f"{name} goes on behind its {array.shape} {array.dtype}")
    return array


def load_npy(path: Path) -> Arrays:
    """Returns the array of an `.npy` file as `train_images`, memory-mapped; ValueError if damaged.

    Raises UserError if it has Python objects.
    """
    array = load_array("the array", partial(npy_format.open_memmap, path, mode="c"))
    assert isinstance(array, np.memmap)
    if array.offset + array.nbytes != path.stat().st_size:
        raise DamagedFileError(f"it goes on behind its {array.shape} {array.dtype}")
    return {IMAGES: array}


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
    length, a JSON header and the bytes. The library checks that the arrays fill the bytes without
    a gap or an overlap.
    """
    header, size = read_header(path)
    header.pop("__metadata__", None)
    for name, entry in header.items():
        if entry["dtype"] not in DTYPES and has_part_prefix(name):
            raise UserError(f"{name} are {entry['dtype']}, which is no type for it")
    with safe_open(path, framework="numpy") as checked:
        if set(checked.keys()) != header.keys():
            raise ValueError("the library reads other arrays")
    arrays: Arrays = {}
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        if entry["dtype"] not in DTYPES:
            arrays[name] = UNREAD
            continue
        kind, shape = DTYPES[entry["dtype"]], tuple(entry["shape"])
        if start == stop:  # nothing to map
            arrays[name] = np.empty(shape, kind)
        else:
            arrays[name] = np.memmap(path, kind, "c", 8 + size + start, shape)
    return arrays


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Returns the header of a safetensors file and its length; ValueError if there is none."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > path.stat().st_size:
            raise ValueError("header is longer than the file")
        return json.loads(file.read(size), object_pairs_hook=without_repetition), size


def without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns the pairs of a JSON object as a dict; DamagedFileError if a key comes twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise DamagedFileError(f"it has two entries {max(names, key=names.count)}")
    return found


READERS = {".npz": load_npz, ".safetensors": map_safetensors, ".npy": load_npy}
