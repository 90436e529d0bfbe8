"""Writing of `.npz` files."""

import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.lib import format as npy_format


def write_npz(file: Any, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name as an npz file, the same bytes each time.

    `numpy.savez` cannot write an array that is called `file`.
    """
    with zipfile.ZipFile(file, "w") as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                npy_format.write_array(member, np.asanyarray(values), allow_pickle=False)
