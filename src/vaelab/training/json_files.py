"""Reading and atomic writing of JSON files."""

import json
import os
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any


def read_json(path: Path) -> dict[str, Any]:
    """Returns the content of a JSON file, or an empty dict if there is no such file."""
    return json.loads(path.read_text()) if path.exists() else {}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a JSON file atomically, replacing an older one; infinite and NaN become null."""
    partial = path.with_name(f"{path.name}.partial")
    if partial.is_symlink():  # in a folder that somebody sent: it would be followed
        partial.unlink()
    partial.write_text(json.dumps(without_nonfinite(content), indent=2, allow_nan=False) + "\n")
    os.replace(partial, path)


def without_nonfinite(content: Any) -> Any:
    """Returns a copy of nested content with None in place of infinite and NaN floats."""
    if isinstance(content, Mapping):
        return {name: without_nonfinite(value) for name, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [without_nonfinite(value) for value in content]
    return None if isinstance(content, float) and not isfinite(content) else content
