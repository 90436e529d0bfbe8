"""Reads random folders of image files, and compares them with Pillow's own decoding, file by file.

    python benchmarks/fuzz_folders.py --folders 100

Prints a table of what was tried and how often it was wrong. Formats, modes, EXIF, classes, parts,
sizes and broken files are drawn; a broken file must be named, or passed over where that is asked.
"""

import argparse
import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from rich.console import Console
from rich.table import Table

from vaelab.data import Folder
from vaelab.errors import UserError

FORMATS = {".png": ["L", "RGB", "RGBA", "P", "1", "I;16", "LA"], ".jpg": ["L", "RGB", "CMYK"]}
FORMATS |= {".webp": ["RGB", "RGBA"], ".tif": ["L", "RGB", "I;16"], ".bmp": ["L", "RGB", "P"]}
CLASSES = ["cat", "dog", "Ä b"]


def draw_image(drawn: random.Random, mode: str, shape: tuple[int, int]) -> Image.Image:
    """Returns a picture of noise of this mode, with one white pixel."""
    noise = np.random.default_rng(drawn.getrandbits(32))
    if mode == "I;16":
        pixels = noise.integers(0, 65536, shape, np.uint16)
        pixels[0, 0] = 65535
        return Image.fromarray(pixels)
    pixels = noise.integers(0, 256, (*shape, 4), np.uint8)
    pixels[0, 0] = 255
    return Image.fromarray(pixels).convert("RGB" if mode in ("CMYK", "P") else mode).convert(mode)


def expected_pixels(path: Path, size: tuple[int, int] | None, grey: bool) -> np.ndarray:
    """Returns an image file as Pillow and numpy decode it, uint8 [C, H, W], on white."""
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
    if image.mode == "I;16":
        image = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    image = image.convert("L" if grey else "RGB")
    if size and image.size != size[::-1]:
        image = image.resize(size[::-1], Image.Resampling.BICUBIC)
    pixels = np.asarray(image)
    return pixels[None] if grey else pixels.transpose(2, 0, 1)


def write_folder(drawn: random.Random, folder: Path, shape: tuple[int, int], same: bool) -> None:
    """Writes 12 to 30 images in drawn formats and modes, by classes and parts where drawn."""
    classes = drawn.choice([[""], CLASSES[:2], CLASSES])
    parts = drawn.choice([[""], ["train", "test"], ["train", "val", "test"]])
    for i in range(drawn.randint(12, 30)):
        suffix = drawn.choice(list(FORMATS))
        mode = drawn.choice(FORMATS[suffix])
        sides = shape if same else (shape[0] + drawn.randint(0, 9), shape[1] + drawn.randint(0, 9))
        path = folder / parts[i % len(parts)] / classes[i // 3 % len(classes)] / f"{i}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        if not same and drawn.random() < 0.3:
            exif[0x0112] = drawn.randint(1, 8)
        more = {} if suffix == ".bmp" else {"exif": exif}
        draw_image(drawn, mode, sides).save(path, **more)


def try_folder(seed: int, folder: Path) -> tuple[str, str]:
    """Tries one random folder; returns what was tried, and what was wrong, or an empty text."""
    drawn = random.Random(seed)
    same = drawn.random() < 0.3
    size = None if same else (drawn.randint(8, 20), drawn.randint(8, 20))
    grey = drawn.random() < 0.5
    write_folder(drawn, folder / "photos", (drawn.randint(8, 20), drawn.randint(8, 20)), same)
    paths = sorted(path for path in (folder / "photos").rglob("*") if path.is_file())
    paths.sort(key=lambda path: path.relative_to(folder).parts)
    settings = {"size": size, "channels": 1 if grey else 3}
    source = Folder(str(folder / "photos"), str(folder / "data"), **settings)
    tried = "one size" if same else "resized"
    if drawn.random() < 0.3:
        broken = drawn.choice(paths)
        broken.write_bytes(broken.read_bytes()[: drawn.randint(0, 60)])
        try:
            source()
            return "a broken file", "it was not seen"
        except UserError as error:
            if not str(error).startswith(f"{broken}: cannot be decoded") or "\n" in str(error):
                return "a broken file", f"{error}"
        settings["broken"], tried = "skip", "a broken file passed over"
        paths.remove(broken)
        source = Folder(str(folder / "photos"), str(folder / "data"), **settings)
    found = source()
    for part, images in found.parts.items():
        some = [p for p in paths if p.is_relative_to(folder / "photos" / part)]
        some = some or (paths if part == "train" else [])
        expected = np.stack([expected_pixels(path, size, grey) for path in some])
        if not np.array_equal(images.numpy(), expected):
            return tried, f"other pixels in {part}"
        labels = getattr(found, f"{part}_labels").tolist()
        named = [found.class_names[i] for i in labels] if found.num_classes else []
        if named and named != [path.parent.name for path in some]:
            return tried, f"other labels in {part}"
    return tried, ""


def main() -> None:
    """Tries random folders and prints a table; exits with 1 if anything was wrong."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--folders", type=int, default=100)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    tried: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for seed in range(given.seed, given.seed + given.folders):
        folder = Path(tempfile.mkdtemp())
        try:
            what, fault = try_folder(seed, folder)
        finally:
            shutil.rmtree(folder)
        tried[what] += 1
        if fault:
            wrong[what] += 1
            print(f"seed {seed}: {what}: {fault}")
    table = Table("folders", "tried", "wrong")
    for what, count in sorted(tried.items()):
        table.add_row(what, f"{count:,}", f"{wrong[what]:,}")
    Console().print(table)
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
