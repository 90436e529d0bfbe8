"""Source of any data set of pictures in torchvision, prepared once."""

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vaelab.data.array_files import Arrays
from vaelab.data.image_settings import Channels, Fit, Ground, ImageSettings, Range, Size
from vaelab.data.items import PreparedItems
from vaelab.data.prepared import load_prepared, prepared_file
from vaelab.data.sources import Downloaded
from vaelab.data.splits import Splits
from vaelab.errors import UserError, first_line, spelling_hint

SPLITS = {
    "train": ("train", "trainval", "train-standard"),
    "val": ("val", "valid"),
    "test": ("test",),
}
"""Values of `split` in torchvision for each part."""
OURS = frozenset(("root", "download", "transform", "target_transform", "transforms", "loader"))
"""Options of torchvision's classes that are given here, or are no plain values."""


class Torchvision(Downloaded):
    """Source of a torchvision data set, downloaded if absent, whose pictures are prepared once.

    Its parts are those of its `train=` or `split=`; without these, or if an option chooses one,
    all images are for training.

    Args:
        name: The class in `torchvision.datasets`.
        folder: Folder of the download and of the prepared file.
        options: Further arguments of the class, such as `{split: letters}` for EMNIST.
        size: Height and width of the images, or both in one number; default: as they are.
        fit: `resize` stretches to that size, `crop` keeps proportions and cuts off the rest.
        channels: 1 or 3; default: those of the first picture.
        ground: What transparent pixels show.
        range: Values of pixels that are black and white; default: those of the pictures' type.

    Raises:
        UserError: If an option is given here already.
    """

    def __init__(
        self,
        name: str,
        folder: str,
        options: dict[str, Any] | None = None,
        size: Size | None = None,
        fit: Fit = "resize",
        channels: Channels | None = None,
        ground: Ground = "white",
        range: Range | None = None,  # noqa: A002
    ) -> None:
        self.name, self.folder, self.options = name, Path(folder), dict(options or {})
        if wrong := OURS & self.options.keys():
            raise UserError(
                f"data.source.options.{min(wrong)}: cannot be given; the folder is paths.data, and "
                "data.source.size, fit and channels say what is done to pictures"
            )
        self.settings = ImageSettings.of_source(size, fit, channels, ground, range)
        told = {"options": sorted(self.options.items()), "images": self.settings}
        self.prepared = prepared_file(self.folder, f"torchvision_{name}", told)

    @property
    def note(self) -> str:
        """Which images they are."""
        chosen = "".join(f", {key}={value}" for key, value in self.options.items())
        return f"{self.name}{chosen} of torchvision"

    def __call__(self) -> Splits:
        """Returns the data set; downloads and prepares it, under a lock, if its file is absent."""
        return load_prepared(self.prepared, self.make_arrays)

    def make_arrays(self) -> Arrays:
        """Downloads all parts if absent, and reads them; raises UserError if that fails."""
        return PreparedItems(self.name, self.prepared, self.settings).make_arrays(self.open_parts())

    def open_parts(self) -> Iterator[tuple[str, Any]]:
        """Yields names and opened parts, one at a time; UserError without a training part."""
        made = self.find_class()
        known = parameter_names(made)
        if unknown := self.options.keys() - known:
            name = min(unknown)
            hint = spelling_hint(name, known - OURS)
            raise UserError(f"data.source.options.{name}: {self.name} has no such option; {hint}")
        fixed: dict[str, Any] = {"root": str(self.folder)} if "root" in known else {}
        fixed |= self.options
        if "train" in known - self.options.keys():
            yield "train", self.open(made, known, fixed | {"train": True})
            yield "test", self.open(made, known, fixed | {"train": False})
        elif "split" in known - self.options.keys():
            for part, values in SPLITS.items():
                opened = (self.open(made, known, fixed | {"split": value}) for value in values)
                found = next((dataset for dataset in opened if dataset is not None), None)
                if found is not None:
                    yield part, found
                elif part == "train":
                    raise UserError(
                        f"data.source.name={self.name}: it has no split train; choose one with "
                        "data.source.options={split: ...}"
                    )
        else:
            yield "train", self.open(made, known, fixed)

    def find_class(self) -> Any:
        """Returns the class in torchvision; raises UserError if there is none of that name."""
        from torchvision import datasets  # slow to import, and needed only for the conversion

        names = [name for name in dir(datasets) if is_data_set(getattr(datasets, name))]
        found = getattr(datasets, self.name, None)
        if not is_data_set(found):
            raise UserError(
                f"data.source.name={self.name}: torchvision has no such data set; "
                f"{spelling_hint(self.name, names)}"
            )
        return found

    def open(self, made: Callable[..., Any], known: set[str], options: dict[str, Any]) -> Any:
        """Returns a part; downloads it only if it is not there. None if there is no such split.

        Raises:
            UserError: If it is not there and cannot be downloaded.
        """
        tries = [{"download": False}, {"download": True}] if "download" in known else [{}]
        fault: Exception | None = None
        for more in tries:
            try:
                return made(**options, **more)
            except TypeError as error:
                raise UserError(
                    f"data.source.name={self.name}: {first_line(error)}; give it in "
                    "data.source.options={...}"
                ) from error
            except Exception as error:  # torchvision raises many types
                fault = error
                if isinstance(error, ValueError) and f"'{options.get('split')}'" in str(error):
                    return None
        raise UserError(
            f"{self.name} is not in {self.folder}, or damaged, and could not be downloaded "
            f"({first_line(fault or ValueError()).rstrip(':')}); place its files there by hand, as "
            f"torchvision.datasets.{self.name} wants them"
        ) from fault


def is_data_set(found: object) -> bool:
    """Returns whether an object is a class of data sets of images."""
    from torchvision.datasets import VisionDataset

    return inspect.isclass(found) and issubclass(found, VisionDataset) and found != VisionDataset


def parameter_names(made: Callable[..., Any]) -> set[str]:
    """Returns the names of a constructor's parameters, with those that it passes to its bases."""
    names: set[str] = set()
    for kind in inspect.getmro(made) if inspect.isclass(made) else (made,):
        parameters = inspect.signature(kind).parameters.values()
        names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(p.kind == p.VAR_KEYWORD for p in parameters):
            break
    return names
