"""Reading and atomic writing of JSON files."""

import json
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from vaelab.errors import DamagedFileError
from vaelab.files.atomic import write_text

ADVICE = "; delete it, and the command that wrote it will write it anew"
"""What to do about a damaged file: it holds nothing that cannot be computed again."""


def read_json(path: Path) -> dict[str, Any]:
    """Returns the dict in a JSON file, or an empty one if there is no such file.

    Raises:
        DamagedFileError: If the file cannot be read, or holds no dict.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DamagedFileError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # no JSON, or no UTF-8
        raise DamagedFileError(f"{path}: damaged, for it is no JSON{ADVICE}") from error
    if not isinstance(found, dict):
        raise DamagedFileError(f"{path}: damaged, for it holds no settings{ADVICE}")
    return found


def read_json_or_nothing(path: Path) -> dict[str, Any]:
    """Returns the dict in a JSON file that others may do without; empty if missing or damaged."""
    try:
        return read_json(path)
    except DamagedFileError:
        return {}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a JSON file atomically, replacing an older one; infinite and NaN become null."""
    write_text(path, json_text(content))


def json_text(content: dict[str, Any]) -> str:
    """Returns content as the text of a JSON file; infinite and NaN become null."""
    return json.dumps(without_nonfinite(content), indent=2, allow_nan=False) + "\n"


def without_nonfinite(content: Any) -> Any:
    """Returns a copy of nested content with None in place of infinite and NaN floats."""
    if isinstance(content, Mapping):
        return {name: without_nonfinite(value) for name, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [without_nonfinite(value) for value in content]
    return None if isinstance(content, float) and not isfinite(content) else content


def number_or_none(value: Any) -> Any:
    """Returns the value if it is a number, even infinite or NaN, and not a boolean; else None."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
