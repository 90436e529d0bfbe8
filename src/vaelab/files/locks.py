"""File locks, by which processes take turns at short work in a shared folder."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

PATIENCE = 60.0
"""Seconds after which a lock that another process holds is not waited for any longer."""


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Context manager with a lock on a file; goes on without it after `PATIENCE` seconds.

    Where files cannot be locked or the lock not be written it goes on at once. It is meant for
    short work.
    """
    lock = FileLock(path)
    with suppress(NotImplementedError, OSError):
        lock.acquire(timeout=PATIENCE)
    try:
        yield
    finally:
        lock.release()
