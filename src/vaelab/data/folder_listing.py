"""The image files of a folder: their parts and classes by subfolders, in an order of their own."""

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from vaelab.data.array_columns import MAX_CLASSES
from vaelab.data.arrays import PARTS
from vaelab.errors import UserError
from vaelab.files.image_decoding import SUFFIXES

PART_FOLDERS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Part by the name of its folder, in small letters."""


@dataclass(frozen=True)
class ImageFile:
    """An image file.

    Attributes:
        path: Its path from the folder, with / between the names.
        size: Bytes.
        mtime_ns: When it was changed.
    """

    path: str
    size: int
    mtime_ns: int


Part = tuple[str, list[ImageFile]]
"""The path of a part's folder, with a / at its end, and its files."""


@dataclass(frozen=True)
class Listing:
    """The image files of a folder, sorted by their paths.

    Attributes:
        root: The folder.
        parts: The files of each part, train first.
        classes: Names of the classes; empty without classes.
        labels: The class of each file by its path; empty without classes.
        remarks: Phrases on what was passed over, and why there are no classes.
    """

    root: Path
    parts: dict[str, list[ImageFile]]
    classes: tuple[str, ...] = ()
    labels: dict[str, int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """A digest of parts, paths, sizes and times of all files."""
        return blake2b(repr(self.parts).encode("utf-8", "surrogateescape")).hexdigest()


def list_folder(folder: Path) -> Listing:
    """Lists the images in a folder and below; UserError for none, or unclear parts or classes.

    Folders train, val and test at the top are parts. Classes are the folders at the top, or in each
    part, where all images lie in folders. If everything lies in one folder, that folder is listed.
    Hidden files and files that are no images are skipped and counted.

    Raises:
        UserError: If there is no folder, it cannot be read or has no images, or parts differ.
    """
    if not folder.exists():
        raise UserError(f"{folder}: there is no such folder")
    if not folder.is_dir():
        raise UserError(f"{folder}: a file, not a folder; data=arrays reads arrays in a file")
    files, remarks = find_files(folder)
    inner = common_folder(files)
    if inner:
        remarks.insert(0, f"all in {folder / inner}")
    parts = divide_parts(folder, inner, files)
    found, why = divide_classes(folder, inner, parts)
    if why:
        remarks.append(f"no classes, for {why}")
    classes = sorted(set(found.values()))
    numbers = {name: number for number, name in enumerate(classes)}
    labels = {path: numbers[name] for path, name in found.items()}
    files_only = {part: some for part, (_, some) in parts.items()}
    return Listing(folder, files_only, tuple(map(as_text, classes)), labels, tuple(remarks))


def find_files(folder: Path) -> tuple[list[ImageFile], list[str]]:
    """Returns the image files below a folder, sorted, and phrases on what was passed over.

    Raises:
        UserError: If a folder cannot be read, or there are no images.
    """
    counts = {"hidden files": 0, "files that are no images": 0}
    try:
        files = sorted(walk(folder, "", counts, set()), key=lambda file: file.path.split("/"))
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror})") from error
    if not files:
        raise UserError(f"{folder}: there are no images in it, such as {image_suffixes()}")
    return files, [f"{what} passed over: {count:,}" for what, count in counts.items() if count]


def walk(
    folder: Path, start: str, counts: dict[str, int], seen: set[object]
) -> Iterator[ImageFile]:
    """Yields the image files below a folder, in any order; counts others in `counts`.

    Follows links, but enters no folder twice on the way down.

    Args:
        folder: The folder that the paths start from.
        start: The path of the folder to look into, empty or with a / at its end.
        counts: Changed in place.
        seen: Device and number of the folders above.

    Raises:
        OSError: If a folder cannot be read.
    """
    status = os.stat(folder / start)
    here = (status.st_dev, status.st_ino)
    if here in seen:
        return
    with os.scandir(folder / start) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                counts["hidden files"] += 1
            elif entry.is_dir():
                yield from walk(folder, f"{start}{entry.name}/", counts, seen | {here})
            elif not entry.is_file() or Path(entry.name).suffix.lower() not in SUFFIXES:
                counts["files that are no images"] += 1
            else:
                found = entry.stat()
                yield ImageFile(start + entry.name, found.st_size, found.st_mtime_ns)


def top_folder(file: ImageFile, start: str) -> str:
    """Returns the first folder of a file's path behind `start`; empty if it lies there."""
    first, slash, _ = file.path.removeprefix(start).partition("/")
    return first if slash else ""


def common_folder(files: Sequence[ImageFile], classes: Collection[str] = ()) -> str:
    """Returns the path of the innermost folder with all files, empty or with a / at its end.

    Enters no folder that has the name of one of the classes.
    """
    inner = ""
    while len(tops := {top_folder(file, inner) for file in files}) == 1:
        (top,) = tops
        if not top or as_text(top) in classes:
            break
        inner += f"{top}/"
    return inner


def label_folders(files: Sequence[ImageFile], classes: Collection[str]) -> list[str]:
    """Returns the folder of each file that names its class, or none unless all files have one.

    They are the folders that `list_folder` takes as classes: the first ones below a folder that
    holds everything, and below the folders of parts. If all files lie in one folder, that names
    the class of all.

    Args:
        files: Image files below one folder.
        classes: Known classes; a folder of such a name is never passed over.
    """
    inner = common_folder(files, classes)
    tops = [top_folder(file, inner) for file in files]
    if all(is_part_folder(top, classes) for top in tops):
        tops = [top_folder(f, f"{inner}{top}/") for f, top in zip(files, tops, strict=True)]
    elif inner and not any(tops):
        outer = [name for name in inner.split("/") if not is_part_folder(name, classes)]
        tops = [outer[0]] * len(files)
    return [as_text(top) for top in tops] if all(tops) else []


def is_part_folder(name: str, classes: Collection[str]) -> bool:
    """Returns whether a folder is that of a part by its name, and not that of a class."""
    return name.lower() in PART_FOLDERS and as_text(name) not in classes


def divide_parts(folder: Path, start: str, files: list[ImageFile]) -> dict[str, Part]:
    """Returns the files by part; all are for training where no folder has its name.

    Raises:
        UserError: If there are images beside the folders of parts, or a part has two folders.
    """
    tops = list(dict.fromkeys(top_folder(file, start) for file in files))
    named = {PART_FOLDERS[top.lower()]: top for top in tops if top.lower() in PART_FOLDERS}
    if "train" not in named:
        return {"train": (start, files)}
    if beside := [top for top in tops if top not in named.values()]:
        where = folder / start / beside[0]
        raise UserError(
            f"{folder / start}: {', '.join(named.values())} are parts, and there are images in "
            f"{where} too; move them into a part"
        )
    return {
        part: (f"{start}{named[part]}/", [f for f in files if top_folder(f, start) == named[part]])
        for part in PARTS
        if part in named
    }


def divide_classes(folder: Path, start: str, parts: dict[str, Part]) -> tuple[dict[str, str], str]:
    """Returns the class of each file by its path, or none, and why there are none.

    Raises:
        UserError: If only some parts have classes, or training lacks one.
    """
    names = {
        part: {file.path: top_folder(file, inside) for file in files}
        for part, (inside, files) in parts.items()
    }
    kinds = {part: set(found.values()) for part, found in names.items()}
    everything = set.union(*kinds.values())
    if len(everything) == 1:  # no folders, or a single one
        return {}, ""
    mixed = [part for part, found in kinds.items() if "" in found]
    if len(mixed) == len(kinds):
        return {}, f"images lie beside the folders {listed(everything - {''})}"
    if mixed:
        raise UserError(
            f"{folder / start}: in {mixed[0]} images lie beside folders, and in another part in "
            "folders only, as classes do; let it be one or the other"
        )
    for part, found in kinds.items():
        if missing := sorted(found - kinds["train"]):
            raise UserError(
                f"{folder / start}: {part} has a class {missing[0]} and training has none; it has "
                f"{listed(kinds['train'])}"
            )
    count, images = len(kinds["train"]), len(names["train"])
    if count > MAX_CLASSES or (images >= 20 and 2 * count > images):
        return {}, f"{count:,} folders are too many of {images:,} images"
    return {path: name for found in names.values() for path, name in found.items()}, ""


def listed(names: Iterable[str], most: int = 6) -> str:
    """Returns the first names, sorted, with commas between them."""
    ordered = sorted(map(as_text, names))
    return ", ".join(ordered[:most]) + (", ..." if len(ordered) > most else "")


def as_text(name: str) -> str:
    """Returns a file's name without bytes that are no UTF-8, which no screen can show."""
    return os.fsencode(name).decode("utf-8", "replace")


def image_suffixes() -> str:
    """Returns the best known suffixes of images, for messages."""
    return ".png, .jpg, .webp, .tif"
