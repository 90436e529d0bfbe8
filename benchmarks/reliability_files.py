"""Flips bits of checkpoints and exports at random, truncates them, and counts what still loads.

    python benchmarks/reliability_files.py [runs/folder] [--tries 1000]

Without a folder it trains a small run first. Prints a table; nothing should be loaded.
"""

import argparse
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import vaelab
from vaelab.errors import UserError
from vaelab.training.callbacks.checkpoint import load_checkpoint

ROOT = Path(__file__).parents[1]


def make_run(folder: Path) -> Path:
    """Trains a small model for an epoch in a new folder, and returns the folder."""
    small = ["model.encoder.hidden=[16]", "model.decoder.hidden=[16]", "model.latent_dim=2"]
    words = ["trainer.max_epochs=1", "trainer.accelerator=cpu", "logger=none", *small]
    command = [sys.executable, "train.py", *words, f"hydra.run.dir={folder}"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return folder


def damage(whole: bytes, dice: random.Random, flip: bool) -> bytes:
    """Returns a copy with one flipped bit, or without its end."""
    if not flip:
        return whole[: dice.randrange(len(whole))]
    copy = bytearray(whole)
    copy[dice.randrange(len(whole))] ^= 1 << dice.randrange(8)
    return bytes(copy)


def count_loaded(path: Path, load: Callable[[], object], tries: int, flip: bool) -> tuple[int, int]:
    """Damages a file `tries` times, restores it, and returns counts of loaded and wrong errors.

    An error is wrong if it is no UserError of one line.
    """
    dice, whole = random.Random(0), path.read_bytes()
    loaded = wrong = 0
    try:
        for _ in range(tries):
            path.write_bytes(damage(whole, dice, flip))
            try:
                load()
                loaded += 1
            except UserError as error:
                wrong += "\n" in str(error)
            except Exception as error:
                print(f"{path.name}: {error!r}")
                wrong += 1
    finally:
        path.write_bytes(whole)
    load()
    return loaded, wrong


def main() -> None:
    """Prints the table of files, damages, tries, loaded files and wrong errors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", type=Path)
    parser.add_argument("--tries", type=int, default=1000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run = asked.run or make_run(Path(scratch) / "run")
        export = Path(scratch) / "export"
        words = [f"run={run.absolute()}", f"to={export}", "what=safetensors"]
        command = [sys.executable, "export.py", *words]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        copies = {name: Path(scratch) / name for name in ("last.ckpt", "best.ckpt")}
        for name, copy in copies.items():
            copy.write_bytes((run / "checkpoints" / name).read_bytes())
        loads: dict[Path, Callable[[], object]] = {
            copy: lambda path=copy: load_checkpoint(path) for copy in copies.values()
        }
        loads |= {
            export / name: lambda: vaelab.load(export)
            for name in ("model.safetensors", "config.json")
        }
        print("| file | bytes | damage | tries | loaded | no error of one line |")
        print("|---|---|---|---|---|---|")
        for path, load in loads.items():
            for flip, name in ((True, "one bit flipped"), (False, "truncated")):
                loaded, wrong = count_loaded(path, load, asked.tries, flip)
                size = path.stat().st_size
                row = f"| {path.name} | {size:,} | {name} | {asked.tries} | {loaded} | {wrong} |"
                print(row, flush=True)


if __name__ == "__main__":
    main()
