"""JSON files, written whole or not at all."""

import json
import os
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any


def read_json(path: Path) -> dict[str, Any]:
    """What a file holds; empty where there is none."""
    return json.loads(path.read_text()) if path.exists() else {}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a file whole or not at all; null for what is infinite or not a number."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(finite(content), indent=2, allow_nan=False) + "\n")
    os.replace(partial, path)


def finite(content: Any) -> Any:
    """The same content with None for numbers that JSON does not have."""
    if isinstance(content, Mapping):
        return {name: finite(value) for name, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [finite(value) for value in content]
    return None if isinstance(content, float) and not isfinite(content) else content
