"""How cost grows with images, latents, width and jobs: python benchmarks/growth.py.

Images per second and peak memory of `vaelab` and of `by_hand`, in a race as in training.py: an
MLP 784-400-20 and back on MNIST, batch 128, one thread; then with another of one of these.
Last, a sweep of two jobs, of which one or two run at once: the images per second of all together,
by what each job says of its own training.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

from race import ROOT, Course, machine, prepare, race
from rich.console import Console
from tables import show

TIMES = 10  # as many images
COLUMNS = ("", "by_hand", "vaelab", "ratio", "quartiles", "by_hand MB", "vaelab MB")


def courses(folder: Path, images: int | None) -> Iterator[tuple[str, Course]]:
    """What is raced on, and what is another in it."""
    usual = prepare("mlp", folder, images)
    yield "the usual", usual
    yield f"images x {TIMES}", prepare("mlp", folder, images, times=TIMES)
    for latents in (2, 200):
        yield f"{latents} latents", replace(usual, latents=latents)
    for hidden in (100, 1600):
        yield f"width {hidden}", replace(usual, hidden=hidden)


def cells(
    what: str, course: Course, folder: Path, rounds: int, steps: int | None
) -> tuple[str, ...]:
    found = race(["vaelab"], course, folder, rounds=rounds, steps=steps)
    ours, theirs = found.times["vaelab"], found.times["by_hand"]
    if ours.failure:
        sys.exit(f"{what}: vaelab failed: {ours.failure}")
    ratio, low, high = found.ratios("vaelab")
    return (
        *(what, f"{found.speed('by_hand'):,.0f}", f"{found.speed('vaelab'):,.0f}"),
        *(f"{ratio:.2f}", f"{low:.2f} to {high:.2f}"),
        *(f"{times.memory / 1e6:,.0f}" for times in (theirs, ours)),
    )


def swept(at_once: int, course: Course, folder: Path, epochs: int) -> float:
    """Images per second of a sweep of two jobs, so many at once and each on one thread."""
    ours = [*course.overrides(), f"trainer.max_epochs={epochs}", "seed=1,2"]
    sweep = [f"hydra.launcher.n_jobs={at_once}", f"hydra.sweep.dir={folder}"]
    subprocess.run(
        [sys.executable, "train.py", "-m", *ours, *sweep],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    results = [json.loads(path.read_text()) for path in folder.glob("*/results.json")]
    return at_once * mean(result["train/images_per_second"] for result in results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, help="of a block; default at most 100")
    parser.add_argument("--epochs", type=int, default=3, help="of the jobs of a sweep")
    parser.add_argument("--images", type=int, help="so many of noise, in place of MNIST")
    parser.add_argument("--markdown", action="store_true", help="for results/")
    options = parser.parse_args()
    if options.markdown:
        print(f"{machine('cpu')}; {date.today()}")
    with TemporaryDirectory() as name, Console(stderr=True).status("") as status:
        folder = Path(name)
        rows: list[tuple[str, ...]] = []
        for what, course in courses(folder, options.images):
            status.update(what)
            place = folder / f"race_{len(rows)}"
            rows.append(cells(what, course, place, options.rounds, options.steps))
        status.update("sweeps")
        usual = prepare("mlp", folder, options.images)
        speeds = [swept(n, usual, folder / f"sweep_{n}", options.epochs) for n in (1, 2)]
    heading = f"images/s and peak memory; {options.rounds} rounds"
    jobs = "A sweep of two jobs: {:,.0f} images/s one at a time, {:,.0f} two at once".format(
        *speeds
    )
    show(heading, COLUMNS, rows, jobs, options.markdown)


if __name__ == "__main__":
    main()
