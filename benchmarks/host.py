"""What a batch costs the host beside its step: python benchmarks/host.py.

`python train.py` with all that a default run has on, but with a step that does nothing and batches
that are there already. A GPU that is done sooner with a step waits for the host, which has to
launch the step besides.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from race import ROOT, Course, prepare

sys.path.insert(0, str(ROOT))

import torch
from torch import Tensor

import train
from vaelab.acceleration import stepping
from vaelab.data.batches import Batches
from vaelab.elbo import ELBO

EPOCHS = 10
CASES = {
    "everything on": [],
    "logged every 400 steps": ["trainer.log_every_n_steps=400"],
    "no logger": ["logger=none"],
}
MEANS = torch.zeros(1, 3)


def no_step(self: ELBO, batch: Any, batch_idx: int) -> None:
    """As with a captured step, but for its replay."""
    self.window.append_means(MEANS)
    stepping.count(self.trainer)


def same_batch(self: Batches, rows: Tensor, block: int) -> Iterator[tuple[Tensor, Tensor]]:
    x, y = torch.zeros(self.batch_size, *self.images.shape[1:]), torch.zeros(self.batch_size, 1)
    for _ in range(0, len(rows), self.batch_size):
        yield x, y


def microseconds(course: Course, folder: Path, *overrides: str) -> float:
    """Of a batch."""
    given = [*course.overrides(), f"trainer.max_epochs={EPOCHS}", f"hydra.run.dir={folder}"]
    once = f"trainer.check_val_every_n_epoch={EPOCHS}"
    with (
        patch.object(sys, "argv", ["train.py", *given, once, "callbacks.board=null", *overrides]),
        patch.object(ELBO, "training_step", no_step),
        patch.object(Batches, "make", same_batch),
        redirect_stdout(StringIO()),
    ):
        train.main()
    results = json.loads((folder / "results.json").read_text())
    return 1e6 * course.batch_size / results["train/images_per_second"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=60_000, help="of noise")
    options = parser.parse_args()
    found: dict[str, list[float]] = {name: [] for name in CASES}
    with TemporaryDirectory() as name:
        course = prepare("mlp", Path(name), options.images)
        for i in range(options.rounds):
            for case, overrides in CASES.items():
                folder = Path(name) / f"{i}_{case}".replace(" ", "_")
                found[case].append(microseconds(course, folder, *overrides))
    for case, times in found.items():
        print(f"{case:24} {median(times):4.0f} us a batch, {min(times):.0f} to {max(times):.0f}")


if __name__ == "__main__":
    main()
