"""Files of data sets: read, written once under a lock, and compared with what they should hold.

`vaelab.data.arrays` describes the arrays in them.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from safetensors.numpy import save

from vaelab.data.array_files import DTYPES, Arrays, map_safetensors, read_arrays, read_header
from vaelab.data.array_images import Layout, Span
from vaelab.data.arrays import build_splits, usual_names
from vaelab.data.contents import Contents, describe_contents, difference_text
from vaelab.data.splits import Splits
from vaelab.errors import DamagedFileError, UserError, WriteError
from vaelab.files import checksums
from vaelab.files.atomic import (
    atomic_file,
    delete_partial_files,
    explain_write_errors,
    make_folder,
    partial_files,
    write_text,
)
from vaelab.files.regular import check_regular_file


def load_or_create(
    path: Path, make: Callable[[], Arrays], expected: Contents | None = None
) -> Splits:
    """Returns the data set in `path`, memory-mapped; makes and writes it under a lock if absent.

    See `load_or_create_arrays`.
    """
    arrays = load_or_create_arrays(path, make, expected)
    try:
        return build_splits(arrays)
    except UserError as error:
        raise UserError(
            f"{path}: damaged, or other data: {error}; delete it and it is made anew"
        ) from error


def load_or_create_arrays(
    path: Path,
    make: Callable[[], Arrays],
    expected: Contents | None = None,
    is_current: Callable[[], bool] = lambda: True,
) -> Arrays:
    """Returns the arrays in `path`, memory-mapped; makes and writes them under a lock if absent.

    Writing is atomic, under a file lock `path` with suffix .lock, on which other processes wait.
    Deletes partial files that a killed process has left. Processes that map the same file share
    its pages.

    Args:
        path: The file.
        make: Makes the arrays.
        expected: What the file should hold, see `check_contents`; default: not checked.
        is_current: Returns whether the file, which exists, need not be made anew.

    Raises:
        UserError: If the file cannot be written or read, is damaged, or holds other data.
    """

    def is_there() -> bool:
        """Returns whether the file exists and is current."""
        return path.exists() and is_current()

    if not is_there() or partial_files(path.parent, path.name):
        try:
            make_folder(path.parent)
            with explain_write_errors(path), FileLock(path.with_suffix(".lock")):
                delete_partial_files(path.parent, path.name)
                if not is_there():
                    arrays = make()
                    check_made(path, arrays, expected)
                    verification_file(path).unlink(missing_ok=True)
                    write_safetensors(path, arrays)
        except WriteError:
            if not is_there():  # else only partial files could not be deleted
                raise
    try:
        arrays = read_arrays(path)
        if expected is not None:
            check_contents(path, arrays, expected)
        else:
            check_arrays_once(path)
    except DamagedFileError as error:
        raise UserError(f"{error}; delete it and it is made anew") from error
    return arrays


def check_made(path: Path, arrays: Arrays, expected: Contents | None) -> None:
    """Raises UserError if arrays that were made for a file are not what it should hold."""
    if expected and (wrong := difference_text(describe_contents(arrays), expected)):
        raise UserError(f"cannot make {path}: what it is made of is damaged, {wrong}")


def check_contents(path: Path, arrays: Arrays, expected: Contents) -> None:
    """Raises DamagedFileError if a file's arrays have other contents; remembers that it checked.

    It is remembered beside the file with its size and times, and not checked again until these
    change; in a read-only folder it is checked each time.

    Args:
        path: The file.
        arrays: Its arrays.
        expected: What they should hold; if empty, what they held when they were first read.

    Raises:
        DamagedFileError: If they hold something else.
    """
    note, stamp = verification_file(path), file_stamp(path)
    before = read_verification(note)
    wanted = expected or before.get("contents")
    if before == {"file": stamp, "contents": wanted}:
        return
    found = describe_contents(arrays)
    if wanted and (wrong := difference_text(found, wanted)):
        changed = "" if expected else f"; if you changed it yourself, delete {note}"
        raise DamagedFileError(f"{path}: damaged, or other data: {wrong}{changed}")
    write_verification(note, {"file": stamp, "contents": found})


def check_arrays_once(path: Path) -> None:
    """Raises as `check_arrays`; remembers a file with a checksum that passed, and skips it then.

    It is remembered as by `check_contents`.
    """
    note, seen = verification_file(path), {"file": file_stamp(path), "contents": None}
    if written_checksum(path) is not None and read_verification(note) != seen:
        check_arrays(path)
        write_verification(note, seen)


def file_stamp(path: Path) -> dict[str, int]:
    """Returns size and times of a file, of which one differs after any change of it."""
    status = path.stat()
    # A time that is set back, as by `cp -p`, does not set back the time of that change.
    times = {"mtime_ns": status.st_mtime_ns, "ctime_ns": status.st_ctime_ns}
    return {"size": status.st_size, **times}


def verification_file(path: Path) -> Path:
    """Returns the path of the JSON file that says when a file was checked, and what it holds."""
    return path.with_suffix(".verified.json")


def read_verification(note: Path) -> dict[str, Any]:
    """Reads what `check_contents` remembered; empty if there is nothing, or nothing readable."""
    try:
        check_regular_file(note)
        content = json.loads(note.read_text())
    except (UserError, OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_verification(note: Path, content: dict[str, Any]) -> None:
    """Writes what `read_verification` reads; does nothing if the folder cannot be written to."""
    with suppress(WriteError):
        write_text(note, json.dumps(content, indent=2) + "\n")


def check_arrays(path: Path) -> None:
    """Raises DamagedFileError if a safetensors file has other arrays than were written to it.

    Passes files without a checksum, which other programs and earlier versions wrote, and files
    that have no such format.
    """
    written = written_checksum(path)
    try:
        whole = written is None or written == checksums.arrays_digest(map_safetensors(path))
    except Exception:  # many types; who reads the file says what is wrong
        return
    if not whole:
        raise DamagedFileError(f"{path}: damaged, for its checksum differs")


def written_checksum(path: Path) -> str | None:
    """Returns the checksum in the header of a safetensors file; None if it has none, or is none."""
    try:
        header, _ = read_header(path)
        return header.get("__metadata__", {}).get(checksums.NAME)
    except Exception:  # many types; who reads the file says what is wrong
        return None


def write_safetensors(path: Path, arrays: Arrays) -> None:
    """Writes arrays as a safetensors file with their checksum, atomically; takes no lock.

    Unlike the library it makes no copy of them, for they may be larger than memory.
    """
    ordered = {name: np.asarray(a, order="C") for name, a in arrays.items()}
    ordered = dict(sorted(ordered.items(), key=lambda item: (-item[1].itemsize, item[0])))
    kinds = {kind: name for name, kind in DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": {checksums.NAME: checksums.arrays_digest(ordered)}}
    start = 0
    for name, array in ordered.items():  # the widest first, so that each is aligned
        stop = start + array.nbytes
        entry = {"dtype": kinds[array.dtype], "shape": array.shape, "data_offsets": [start, stop]}
        header[name], start = entry, stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with atomic_file(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in ordered.values():
            file.write(array.reshape(-1).view(np.uint8).data)


def safetensors_bytes(arrays: Arrays) -> bytes:
    """Returns arrays as the bytes of a safetensors file, with their checksum in its metadata."""
    ordered = {name: np.asarray(a, order="C") for name, a in arrays.items()}
    return save(ordered, {checksums.NAME: checksums.arrays_digest(ordered)})


def read_splits(
    path: Path,
    num_classes: int | None = None,
    span: Span | None = None,
    layout: Layout | None = None,
) -> Splits:
    """Returns the data set in an npz, safetensors or npy (images alone) file, or raises UserError.

    Args:
        path: The file.
        num_classes: See `vaelab.data.arrays.build_splits`.
        span: See `vaelab.data.arrays.build_splits`.
        layout: See `vaelab.data.arrays.build_splits`.

    Raises:
        UserError: If the file cannot be read or its arrays are of the wrong type or shape.
    """
    arrays = read_arrays(path)
    usual = usual_names(arrays)
    renamed = ", ".join(f"{name} as {new}" for name, new in usual.items() if new != name)
    said = [f"read {renamed}"] if renamed else []
    try:
        named = {usual[name]: array for name, array in arrays.items()}
        splits = build_splits(named, num_classes, span, layout)
    except UserError as error:
        raise UserError(f"{path}: {'; '.join([str(error), *said])}") from error
    return replace(splits, remarks=(*said, *splits.remarks))
