"""Check that a path which a user gave is a file, and no pipe or device that is waited for."""

import stat
from pathlib import Path

from vaelab.errors import UserError

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_regular_file(path: Path, setting: str = "") -> None:
    """Raises UserError unless there is a regular file or a link to one; opens nothing.

    Opening a pipe or a device would wait, perhaps forever.

    Args:
        path: The path.
        setting: Words before the path in the message, such as `images=`.

    Raises:
        UserError: If there is no file, or it is of another kind, or cannot be reached.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{setting}{path}: there is no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{setting}{path}: cannot be read ({reason})") from error
    if not stat.S_ISREG(mode):
        kind = KINDS.get(stat.S_IFMT(mode), "something else")
        raise UserError(f"{setting}{path}: cannot be read ({kind}, not a file)")
