"""Training on more images than memory: python benchmarks/bigger_than_memory.py --gigabytes 10.

Writes a file of random 64 x 64 x 3 images, trains a small MLP on it with `data.in_memory=window`,
and in another process the same MLP for as many steps on a part of the file that is held in memory.
A row for each: images per second of training, and the most memory that its process had: all that is
resident, and its own, without the pages of mapped files, which the system can drop. `--mapped` adds
the whole file mapped into memory. The files are deleted at the end.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.lib import format as npy_format
from tables import show

ROOT = Path(__file__).parents[1]
SHAPE = (3, 64, 64)
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}
CHUNK = 4000  # images that are written at once
COLUMNS = ("", "images", "images/s", "MB", "own MB")


def write_images(path: Path, count: int) -> None:
    """Writes an `.npy` file of images with smooth random stripes, each image another."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (CHUNK, *SHAPE), dtype=np.uint8)
    with path.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, *SHAPE)}
        npy_format.write_array_header_1_0(file, header)
        for start in range(0, count, CHUNK):
            some = noise[: count - start] + rng.integers(0, 256, dtype=np.uint8)  # which wraps
            file.write(some.data)


def memory_of(process: int) -> tuple[int, int]:
    """Returns the resident bytes of a process, and those that are no pages of files; 0 if over."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0, 0
    kilobytes = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Rss")}
    held = sum(map(int, kilobytes.values()))
    return held * 1024, (held - int(kilobytes.get("RssFile", 0))) * 1024


def train(file: Path, run: Path, *overrides: str) -> tuple[float, int, int]:
    """Trains in a process of its own; returns images per second and the most memory, as above."""
    layers = ["model.encoder.hidden=[32]", "model.decoder.hidden=[32]", "network=mlp"]
    given = ["data=arrays", f"data.source.path={file}", *layers, f"hydra.run.dir={run}"]
    quiet = ["logger=none", "callbacks.board=null", *overrides]
    command = [sys.executable, str(ROOT / "train.py"), *given, *quiet]
    with (run.with_suffix(".log")).open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, env=ONE_THREAD
        )
        most = (0, 0)
        done = threading.Event()
        while process.poll() is None:
            most = tuple(map(max, most, memory_of(process.pid)))
            done.wait(0.2)
    if process.returncode:
        sys.exit((run.with_suffix(".log")).read_text(errors="replace"))
    found = json.loads((run / "results.json").read_text())
    return found["train/images_per_second"], *most


def main() -> None:
    """Writes the files, trains on them, prints the table and deletes all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=10, help="size of the large file")
    parser.add_argument("--part", type=float, default=0.4, help="gigabytes held in memory")
    parser.add_argument("--batches", type=int, help="training batches; default: an epoch")
    parser.add_argument("--folder", type=Path, help="where the files are written")
    parser.add_argument("--mapped", action="store_true", help="also map the large file")
    parser.add_argument("--rounds", type=int, default=1, help="times that each is trained")
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    with TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        size = int(np.prod(SHAPE))
        sizes = {"large": options.gigabytes, "part": options.part}
        counts = {file: int(gigabytes * 1e9 / size) for file, gigabytes in sizes.items()}
        for file, count in counts.items():
            began = time.monotonic()
            write_images(folder / f"{file}.npy", count)
            print(f"{count:,} images in {time.monotonic() - began:.0f} s", flush=True)
        batches = options.batches or counts["large"] * 8 // 10 // 128
        limits = [f"+trainer.limit_{part}_batches=20" for part in ("val", "test")]
        epochs = -(-batches // max(1, counts["part"] * 8 // 10 // 128))
        few = [*limits, f"trainer.max_steps={batches}", f"trainer.max_epochs={epochs}"]
        tried = {
            "a part, in memory": ("part", few),
            "all, in windows": (
                "large",
                [*limits, f"+trainer.limit_train_batches={batches}", "trainer.max_epochs=1"],
            ),
        }
        if options.mapped:
            all_mapped = [*tried["all, in windows"][1], "data.in_memory=all"]
            tried["all, mapped"] = ("large", all_mapped)
        rows = []
        for turn in range(options.rounds):
            for what, (file, overrides) in tried.items():
                run = folder / f"{what.replace(', ', '_').replace(' ', '_')}_{turn}"
                speed, held, own = train(folder / f"{file}.npy", run, *overrides)
                cells = (f"{speed:,.0f}", f"{held / 1e6:,.0f}", f"{own / 1e6:,.0f}")
                rows.append((what, f"{counts[file]:,}", *cells))
                print(*rows[-1], flush=True)
    title = f"{options.gigabytes:g} GB of 64 x 64 x 3, MLP of width 32, {batches:,} batches of 128"
    show(title, COLUMNS, rows, "", options.markdown)


if __name__ == "__main__":
    main()
