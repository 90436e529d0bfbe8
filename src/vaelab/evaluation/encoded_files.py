"""Files of encoded images: npz with an array for each name, CSV and Parquet with columns."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vaelab.errors import UserError
from vaelab.evaluation.encoding import Encoded
from vaelab.files.atomic import atomic_file, make_folder
from vaelab.files.npz import write_npz


def check_encoded_path(path: Path) -> None:
    """Raises UserError unless a file's ending is one of `WRITERS`, and there is no such folder."""
    if path.suffix not in WRITERS:
        raise UserError(f"to={path}: should end in {', '.join(WRITERS)}")
    if os.path.isdir(path):  # of a path that is too long, pathlib's raises
        raise UserError(f"to={path}: is a folder; name a file in it")


def write_encoded(path: Path, found: Encoded, settings: Mapping[str, Any]) -> None:
    """Writes encoded images by the ending of `path`, atomically; makes its folder, overwrites.

    Args:
        path: Its ending is one of `WRITERS`.
        found: Arrays [N] or [N, D] by name. In CSV and Parquet a column for each, `mean_0`,
            `mean_1` and so on of D.
        settings: Stored in an npz file as JSON, `settings`; other files do without.

    Raises:
        WriteError: If the file cannot be written.
    """
    make_folder(path.parent)
    with atomic_file(path) as file:
        WRITERS[path.suffix](file, found, settings)


def write_archive(file: Any, found: Encoded, settings: Mapping[str, Any]) -> None:
    """Writes the arrays, and the settings as JSON, as an npz file, the same bytes each time."""
    write_npz(file, found | {"settings": np.array(json.dumps(dict(settings)))})


def write_csv(file: Any, found: Encoded, settings: Mapping[str, Any]) -> None:
    """Writes the columns as CSV in UTF-8, each number to its last bit; ignores the settings."""
    from vaelab.files.spreadsheets import without_formulas  # brings pandas

    file.write(without_formulas(encoded_table(found)).to_csv(index=False).encode())


def write_parquet(file: Any, found: Encoded, settings: Mapping[str, Any]) -> None:
    """Writes the columns as Parquet; ignores the settings."""
    encoded_table(found).to_parquet(file, index=False)


def encoded_table(found: Encoded) -> Any:
    """Returns a pandas table with a row for each image, and a column for each of D latents."""
    import pandas as pd  # slow

    columns: dict[str, np.ndarray] = {}
    for name, values in found.items():
        if values.ndim == 1:
            columns[name] = values
        else:
            columns |= {f"{name}_{i}": column for i, column in enumerate(values.T)}
    return pd.DataFrame(columns)


WRITERS: dict[str, Callable[[Any, Encoded, Mapping[str, Any]], None]] = {
    ".npz": write_archive,
    ".csv": write_csv,
    ".parquet": write_parquet,
}
"""Writers by the ending of a file's name."""
