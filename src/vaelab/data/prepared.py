"""Prepared files: a source's images, decoded once into a file that all processes map."""

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from vaelab.data import store
from vaelab.data.array_files import Arrays, read_arrays
from vaelab.data.arrays import build_splits
from vaelab.data.splits import Splits
from vaelab.errors import UserError
from vaelab.files.atomic import explain_write_errors

ABOUT = "about"
"""Name of the array, bytes of JSON, that a prepared file has beside images and labels."""


@dataclass(frozen=True)
class About:
    """What a prepared file says of itself.

    Attributes:
        made_of: Digest of its source.
        classes: Names of the classes; empty: those that occur.
        remarks: Phrases on what was done to the images.
    """

    made_of: str = ""
    classes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def to_array(self) -> np.ndarray:
        """Returns it as an array of bytes."""
        return np.frombuffer(json.dumps(asdict(self)).encode(), np.uint8)

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """Reads it from the arrays of a prepared file; raises ValueError if it is not there."""
        try:
            found = json.loads(arrays[ABOUT].tobytes())
            return cls(found["made_of"], tuple(found["classes"]), tuple(found["remarks"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"no {ABOUT}") from error


def prepared_file(folder: Path, name: str, settings: Mapping[str, Any]) -> Path:
    """Returns the path of a prepared file, by a name and a digest of what it depends on."""
    text = repr(sorted(settings.items())).encode("utf-8", "surrogateescape")
    plain = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)
    plain = plain.encode("ascii", "replace").decode().replace("?", "_")[:40]
    return folder / f"{plain}_{blake2b(text, digest_size=6).hexdigest()}.safetensors"


def is_made_of(path: Path, made_of: str) -> bool:
    """Returns whether a prepared file can be read and its source has this digest."""
    try:
        return About.from_arrays(read_arrays(path)).made_of == made_of
    except (UserError, ValueError):
        return False


def load_prepared(path: Path, make: Callable[[], Arrays], made_of: str | None = None) -> Splits:
    """Returns the data set in a prepared file, mapped; makes it under a lock if it is not current.

    Args:
        path: The file.
        make: Makes the arrays, of which one is `ABOUT`.
        made_of: Digest of its source; default: not checked.

    Raises:
        UserError: If it cannot be made, written or read, or is damaged.
    """

    def is_current() -> bool:
        """Returns whether the file was made of the present source."""
        return made_of is None or is_made_of(path, made_of)

    def make_checked() -> Arrays:
        """Makes the arrays; raises UserError if they are no data set."""
        arrays = make()
        build_prepared(arrays)
        return arrays

    arrays = store.load_or_create_arrays(path, make_checked, {}, is_current)
    try:
        return build_prepared(arrays)
    except (UserError, ValueError) as error:
        raise UserError(
            f"{path}: damaged, or other data: {error}; delete it and it is made anew"
        ) from error


def build_prepared(arrays: Arrays) -> Splits:
    """Returns the arrays of a prepared file as a data set; UserError or ValueError if unfit."""
    about = About.from_arrays(arrays)
    rest = {name: array for name, array in arrays.items() if name != ABOUT}
    splits = build_splits(rest, len(about.classes) or None, (0, 255), "NCHW")
    classes = about.classes or splits.class_names
    return replace(splits, class_names=classes, remarks=about.remarks)


class ImageSpool:
    """Context manager: collects images for a prepared file, on the disk and not in memory.

    Its file has no name, so a process that is killed leaves nothing behind.

    Args:
        beside: The prepared file, on whose disk it is.
    """

    def __init__(self, beside: Path) -> None:
        self.beside = beside
        self.count = 0
        self.shape: tuple[int, ...] = ()

    def __enter__(self) -> Self:
        with explain_write_errors(self.beside):
            self.file = tempfile.TemporaryFile(dir=self.beside.parent)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with explain_write_errors(self.beside):
            self.file.close()

    def append(self, image: np.ndarray) -> None:
        """Writes an image uint8 [C, H, W], of the same shape as all before."""
        assert not self.count or image.shape == self.shape
        self.shape = image.shape
        with explain_write_errors(self.beside):
            self.file.write(np.ascontiguousarray(image).data)
        self.count += 1

    def parts(self, sizes: Mapping[str, int]) -> Arrays:
        """Returns the images uint8 [N, C, H, W] by part, mapped, from how many each has, in order.

        Parts without images are left out.
        """
        with explain_write_errors(self.beside):
            self.file.flush()
        mapped = np.memmap(self.file, np.uint8, "c", shape=(self.count, *self.shape))
        stops = np.cumsum([*sizes.values()]).tolist()
        return {
            f"{part}_images": mapped[stop - size : stop]
            for (part, size), stop in zip(sizes.items(), stops, strict=True)
            if size
        }
