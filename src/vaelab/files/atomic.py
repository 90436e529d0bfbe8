"""Atomic writing of files: beside the target, synced and renamed, so that a file is always whole.

Every file of a run, export, report or sweep folder is written by `atomic_file`, but those that a
library appends to: logs, event files, metrics.csv and Optuna's journal.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from io import BufferedRandom, FileIO
from pathlib import Path
from secrets import token_hex
from typing import Any, BinaryIO, cast

from vaelab.errors import WriteError, exception_chain, first_line

NO_ROOM = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS))
"""Numbers of errors that only writing raises: a full disk, quotas, a read-only file system."""
PARTIAL = ".partial"
"""Suffix of a file that is being written; left behind by a process that is killed meanwhile."""


class ErrorKeepingFile(FileIO):
    """A file that keeps its first OSError, which torch's and other writers hide from their caller.

    Attributes:
        error: The first OSError of `write`; None if there was none.
    """

    error: OSError | None = None

    def write(self, data: Any) -> int | None:  # type: ignore[override]
        """Writes bytes and returns their count; keeps an OSError before it raises it."""
        try:
            return super().write(data)
        except OSError as error:
            self.error = self.error or error
            raise


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Context manager: a binary file beside `path`, at the end synced and renamed to `path`.

    It can be read as well; its `name` is its path, for libraries that open files themselves. If
    the body raises, the file is deleted, and an older one at `path` stays as it was.

    Raises:
        WriteError: If the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.{token_hex(4)}{PARTIAL}")
    with explain_write_errors(path):
        raw = ErrorKeepingFile(partial, "x+")
        try:
            with closing(raw):  # without its buffer, which a full disk can refuse again and again
                file = BufferedRandom(raw)
                yield cast(BinaryIO, file)
                file.flush()
                os.fsync(raw.fileno())
            os.replace(partial, path)
        except Exception as error:
            if raw.error is not None and not isinstance(error, OSError):
                raise write_error(path, raw.error) from raw.error
            raise
        finally:
            with suppress(OSError):  # it is renamed, or the disk has become read-only
                partial.unlink()
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Waits until the names in a folder are on the disk; returns at once where that can't be."""
    with suppress(OSError):  # Windows and some file systems cannot sync a folder
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


@contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Context manager that turns an OSError into a WriteError that names `path` and the reason.

    A library's own kind of OSError without a number of the system, as Hydra's for a missing choice,
    is no failed write, and is left alone.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None and type(error) is not OSError:
            raise
        raise write_error(path, error) from error


def write_error(path: Path, error: OSError) -> WriteError:
    """Returns the error for the user that `path` cannot be written, with the reason."""
    return WriteError(f"cannot write {path}: {error.strerror or first_line(error)}")


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file atomically, replacing an older one."""
    with atomic_file(path) as file:
        file.write(text.encode())


def make_folder(path: Path) -> None:
    """Creates a folder, and those above it, unless it exists; raises WriteError if that fails."""
    with explain_write_errors(path):
        path.mkdir(parents=True, exist_ok=True)


def partial_files(folder: Path, name: str = "") -> list[Path]:
    """Returns the files left half-written in a folder: of one `name`, or of all if it is empty."""
    try:
        beside = list(folder.iterdir())
    except OSError:
        return []
    start = f".{name}." if name else "."
    return [path for path in beside if path.name.startswith(start) and path.suffix == PARTIAL]


def delete_partial_files(folder: Path, name: str = "") -> None:
    """Deletes `partial_files` that a killed process left; skips those that it can't delete.

    Call it only while no other process writes there.
    """
    for path in partial_files(folder, name):
        with suppress(OSError):
            path.unlink()


def first_write_error(error: BaseException) -> WriteError | OSError | None:
    """Returns the first WriteError that led to an error, else the first OSError of `NO_ROOM`."""
    chain = [*exception_chain(error)][::-1]
    found: list[WriteError | OSError] = [e for e in chain if isinstance(e, WriteError)]
    found += [e for e in chain if isinstance(e, OSError) and e.errno in NO_ROOM]
    return found[0] if found else None
