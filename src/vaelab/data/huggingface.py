"""Source of a data set of pictures on the Hugging Face hub, or saved on the disk, prepared once."""

import os
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

from vaelab.data.array_files import Arrays
from vaelab.data.folder_listing import PART_FOLDERS
from vaelab.data.image_settings import Channels, Fit, Ground, ImageSettings, Range, Size
from vaelab.data.items import KEYS, PreparedItems
from vaelab.data.prepared import is_made_of, load_prepared, prepared_file
from vaelab.data.sources import Downloaded
from vaelab.data.splits import Splits
from vaelab.errors import UserError, first_line

OLDEST = 5
INSTALL = 'pip install "vaelab[datasets]"'


class HuggingFace(Downloaded):
    """Source of a data set of the `datasets` library, whose pictures are prepared once.

    Splits train, validation and test are parts; others are not used.

    Args:
        name: Its name on the hub, such as `ylecun/mnist`, or a folder of `save_to_disk`.
        folder: Folder of the download and of the prepared file.
        config: Name of its configuration, where it has several.
        revision: Its version on the hub; default: the newest, once.
        image: The column of pictures; default: the only one.
        label: The column of labels; default: the only one of classes, or one called label.
        size: Height and width of the images, or both in one number; default: as they are.
        fit: `resize` stretches to that size, `crop` keeps proportions and cuts off the rest.
        channels: 1 or 3; default: those of the first picture.
        ground: What transparent pixels show.
        range: Values of pixels that are black and white; default: those of the pictures' type.
    """

    def __init__(
        self,
        name: str,
        folder: str,
        config: str | None = None,
        revision: str | None = None,
        image: str | None = None,
        label: str | None = None,
        size: Size | None = None,
        fit: Fit = "resize",
        channels: Channels | None = None,
        ground: Ground = "white",
        range: Range | None = None,  # noqa: A002
    ) -> None:
        self.name, self.folder = name, Path(folder)
        self.config, self.revision = config, revision
        self.image, self.label = image, label
        self.settings = ImageSettings.of_source(size, fit, channels, ground, range)
        where = os.path.abspath(name) if self.is_saved else name
        told = {"name": where, "config": config, "revision": revision, "images": self.settings}
        told |= {"image": image, "label": label}
        self.prepared = prepared_file(self.folder, name.replace("/", "_"), told)

    @property
    def is_saved(self) -> bool:
        """Whether the name is a folder of `save_to_disk`."""
        return any((Path(self.name) / f).exists() for f in ("dataset_dict.json", "state.json"))

    @property
    def digest(self) -> str:
        """Digest of names, sizes and times of the files of such a folder; empty of the hub's."""
        if not self.is_saved:
            return ""
        stats = {path: path.stat() for path in sorted(Path(self.name).rglob("*"))}
        found = [
            (str(path.relative_to(self.name)), stat.st_size, stat.st_mtime_ns)
            for path, stat in stats.items()
            if path.is_file() and not path.name.startswith("cache-")  # the library's own
        ]
        return blake2b(repr(found).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()

    @property
    def note(self) -> str:
        """Which images they are."""
        return f"{self.name} of Hugging Face"

    def __call__(self) -> Splits:
        """Returns the data set; prepares it, under a lock, if it is new or its folder has changed.

        Downloads one of the hub first.
        """
        made_of = self.digest
        changed = self.prepared.exists() and not self.is_current(made_of)
        make = partial(self.make_arrays, made_of)
        splits = load_prepared(self.prepared, make, made_of or None)
        said = [f"{self.name} has changed, and its images were decoded anew"] if changed else []
        return replace(splits, remarks=(*said, *splits.remarks))

    def is_prepared(self) -> bool:
        """Returns whether the prepared file is there, made of the present files of a folder."""
        return self.prepared.exists() and self.is_current(self.digest)

    def is_current(self, made_of: str) -> bool:
        """Returns whether the prepared file has this digest; true of the hub's, which have none."""
        return not made_of or is_made_of(self.prepared, made_of)

    def make_arrays(self, made_of: str) -> Arrays:
        """Downloads the data set if absent, and reads its parts; raises UserError if unfit.

        The prepared file says that it is made of files of this digest.
        """
        every = self.load()
        parts = {PART_FOLDERS[n.lower()]: n for n in every if n.lower() in PART_FOLDERS}
        if "train" not in parts:
            raise UserError(f"{self.name}: has no split train, but {', '.join(every)}")
        features = every[parts["train"]].features
        image, label = self.find_image(features), self.find_label(features)
        wanted = {"image": image} | ({"label": label} if label else {})
        views = [
            (part, Rows(every[parts[part]], wanted))
            for part in ("train", "val", "test")
            if part in parts
        ]
        unused = sorted(every.keys() - parts.values())
        remarks = [f"splits not used: {', '.join(unused)}"] if unused else []
        remarks += [f"labels are its {label}"] if label else []
        classes = tuple(getattr(features[label], "names", ()) if label else ())
        reading = PreparedItems(self.name, self.prepared, self.settings)
        return reading.make_arrays(views, classes, remarks=remarks, made_of=made_of)

    def load(self) -> dict[str, Any]:
        """Returns the data set by splits; raises UserError without the library, or if it fails."""
        try:
            import datasets
        except ImportError as error:
            raise UserError(f"data=huggingface needs a library: {INSTALL}") from error
        if int(datasets.__version__.partition(".")[0]) < OLDEST:  # whose readers took pickles
            raise UserError(
                f"data=huggingface needs datasets of version {OLDEST}, and {datasets.__version__} "
                f"is installed: {INSTALL}"
            )
        try:
            found: Any = (
                datasets.load_from_disk(self.name)
                if self.is_saved
                else datasets.load_dataset(
                    self.name,
                    self.config,
                    revision=self.revision,
                    cache_dir=str(self.folder / "huggingface"),
                )
            )
        except Exception as error:  # of the library or of the network, of many types
            raise UserError(
                f"data.source.name={self.name}: could not be loaded ({first_line(error)})"
            ) from error
        return dict(found) if isinstance(found, dict) else {"train": found}

    def find_image(self, features: Any) -> str:
        """Returns the column of pictures; raises UserError if none or several fit."""
        pictures = [n for n, feature in features.items() if type(feature).__name__ == "Image"]
        found = self.image or (pictures[0] if len(pictures) == 1 else "")
        if found not in pictures:
            held = ", ".join(pictures) or f"no pictures, but {', '.join(features)}"
            raise UserError(f"{self.name}: give the column of pictures, data.source.image=; {held}")
        return found

    def find_label(self, features: Any) -> str | None:
        """Returns the column of labels, None if there is none; UserError if the name is wrong."""
        if self.label is not None:
            if self.label not in features:
                raise UserError(
                    f"data.source.label={self.label}: possible are {', '.join(features)}"
                )
            return self.label
        classes = [n for n, feature in features.items() if type(feature).__name__ == "ClassLabel"]
        named = [name for name in KEYS["label"] if name in features]
        return classes[0] if len(classes) == 1 else named[0] if named else None


class Rows:
    """The pictures and labels of a split, by index.

    Args:
        rows: The split.
        columns: Its columns by what they are, `image` and perhaps `label`.
    """

    def __init__(self, rows: Any, columns: dict[str, str]) -> None:
        self.rows, self.columns = rows.select_columns([*columns.values()]), columns

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        return {kind: row[name] for kind, name in self.columns.items()}
