"""SHA-256 checksums of the files that neither torch nor safetensors verifies on loading.

A checkpoint, which is a ZIP archive, has its checksum as the archive's comment; a text has it
inside, where it replaces as many zeros.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import ZipFile

import numpy as np

from vaelab.errors import DamagedFileError

NAME = "sha256"
LABEL = f"{NAME} ".encode()
ZEROS = "0" * 64
COMMENT = len(LABEL) + len(ZEROS)  # bytes of a ZIP archive's comment
END = b"PK\x05\x06"  # begins the last record of a ZIP archive, of 22 bytes without its comment
CHUNK = 1 << 20


def stream_digest(file: BinaryIO, size: int) -> str:
    """Returns the checksum of the first `size` bytes of a file, which it reads from the start."""
    file.seek(0)
    found = hashlib.sha256()
    while size > 0 and (part := file.read(min(size, CHUNK))):
        found.update(part)
        size -= len(part)
    return found.hexdigest()


def file_digest(path: Path) -> str:
    """Returns the checksum of a file."""
    with path.open("rb") as file:
        return stream_digest(file, path.stat().st_size)


def arrays_digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Returns a checksum of arrays: of their names, types, shapes and values, in any order."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        found.update(repr((name, array.dtype.str, array.shape)).encode())
        found.update(array.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def append_zip_checksum(file: BinaryIO) -> None:
    """Appends the checksum of a ZIP archive, open for reading and writing, as its comment."""
    size = file.seek(0, os.SEEK_END)
    file.seek(size - 22)
    assert file.read(4) == END, "the archive has a comment already"
    file.seek(size - 2)
    file.write(COMMENT.to_bytes(2, "little"))  # part of what is checked
    comment = LABEL + stream_digest(file, size).encode()
    file.seek(size)
    file.write(comment)


def verify_zip(file: BinaryIO, path: Path) -> bool:
    """Verifies a ZIP archive; returns whether it has a checksum, and not only those of its members.

    Args:
        file: The archive, open for reading; its position changes.
        path: The path of the file, for the message.

    Raises:
        DamagedFileError: If a checksum differs.
        Exception: Of many types, if the file is no ZIP archive.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - COMMENT))
    comment = file.read()
    if comment.startswith(LABEL):
        if stream_digest(file, size - COMMENT) != comment.removeprefix(LABEL).decode("latin-1"):
            raise DamagedFileError(f"{path}: damaged, for its checksum differs")
        return True
    with ZipFile(file) as archive:
        if (member := archive.testzip()) is not None:
            raise DamagedFileError(f"{path}: damaged, for the checksum of {member} in it differs")
    return False


def with_checksum(text: str) -> str:
    """Returns a text with the checksum of all of it in place of the `ZEROS` in it."""
    return text.replace(ZEROS, hashlib.sha256(text.encode()).hexdigest())


def has_checksum(text: str, checksum: Any) -> bool:
    """Returns whether this is the checksum that `with_checksum` put into the text."""
    if not isinstance(checksum, str) or text.count(checksum) != 1:
        return False
    return hashlib.sha256(text.replace(checksum, ZEROS).encode()).hexdigest() == checksum
