"""Small, full and read-only file systems, mounted for a test where that is permitted."""

import subprocess
from contextlib import contextmanager

import pytest


@contextmanager
def small_disk(folder, kilobytes):
    """Context manager that mounts a tmpfs of this size at a new folder; skips the test if refused.

    Mounting needs root on Linux.
    """
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    try:
        refused = subprocess.run(mount, capture_output=True, check=False).returncode
    except FileNotFoundError:
        refused = True
    if refused:
        pytest.skip("a small disk can be mounted only by root on Linux")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def make_read_only(folder):
    """Mounts a small disk again, read-only."""
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)


def fill(folder, left=0):
    """Fills a small disk but for `left` kilobytes, which must be multiples of 4; returns the file.

    A file that is there already is replaced.
    """
    path = folder / "fill"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            size = file.tell()
        file.truncate(size - 1024 * left)
    return path
