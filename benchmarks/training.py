"""Training speed of vaelab and its peers, side by side, as ratios to a hand-written loop.

    python benchmarks/training.py                        # batch 128 and 512, one thread
    python benchmarks/training.py --threads 1 2 --batch 128 512 --network mlp conv
    python benchmarks/training.py --pythae PYTHON        # pythae too, in an environment of its own
    python benchmarks/training.py --only by_hand vaelab --starts 5

All train the same network on binary images with Adam: an MLP 784-400-20 and back on MNIST, or
network=conv or resnet on CIFAR-10. `by_hand` is 1.00: PyTorch, images in memory as uint8, fused
Adam, nothing logged. `vaelab` is `python train.py` with all that a default run has on: TensorBoard,
progress, annealing, metrics, checkpoints. Everyone's output goes to a file, where a progress
bar writes lines.

A round has a block of 100 steps of each in turn, on a GPU 400, fewer where those take long; the
table has the median over rounds of images per second, and of the ratio to `by_hand` of the same
round, with its quartiles. After some rounds all are started anew, for a process may be a tenth
faster or slower than another one of the same program. A block that the end of an epoch came into
is taken anew, so that validation and checkpoints are left out, ours and others'. The first 10
steps, with what is compiled at them, are not counted. Memory is the peak of the process, all
imports included.
"""

import argparse
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

from race import REFERENCE, ContenderError, Course, Race, machine, pooled, prepare, race
from rich.console import Console
from rich.status import Status
from tables import show

DENSE_ONLY = ("products", "written_out")
GPU_ONLY = ("cuda_graph", "vaelab_bf16")
NAMES = (
    *DENSE_ONLY,
    *("cuda_graph", "compiled", "by_hand", "by_hand_foreach", "by_hand_default", "dataloader"),
    *("lightning", "vaelab", "vaelab_compiled", "vaelab_bf16", "pythae"),
)
COLUMNS = ("", "images/s", "of by_hand", "quartiles", "by CPU time", "memory")


def contenders(options: argparse.Namespace, network: str) -> list[str]:
    """Those that were asked for and are possible."""
    left_out = [
        *(DENSE_ONLY if network != "mlp" else ()),
        *(GPU_ONLY if options.device != "cuda" else ()),
        *(("pythae",) if options.pythae is None else ()),
    ]
    return [name for name in NAMES if name in options.only and name not in left_out]


def rows(found: Race) -> Iterator[tuple[str, ...]]:
    """The cells of each contender, in the order of NAMES."""
    for name in (name for name in NAMES if name in found.times):
        if found.times[name].failure:
            yield name, "failed", *("",) * (len(COLUMNS) - 2)
            continue
        ratio, low, high = found.ratios(name)
        process, *_ = found.ratios(name, "process")
        yield (
            *(name, f"{found.speed(name):,.0f}", f"{ratio:.2f}", f"{low:.2f} to {high:.2f}"),
            *(f"{process:.2f}", f"{found.memory(name):.2f}"),
        )


def failures(found: Race) -> str:
    """A line for each contender that failed, with its error."""
    failed = {name: times.failure for name, times in found.times.items() if times.failure}
    return "\n".join(f"{name} failed: {error}" for name, error in failed.items())


def parse() -> argparse.Namespace:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--network", nargs="+", choices=("mlp", "conv", "resnet"), default=["mlp"])
    parser.add_argument("--batch", nargs="+", type=int, default=[128, 512])
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="CONTENDER")
    parser.add_argument(
        "--pythae", metavar="PYTHON", help="of an environment with pythae and torch"
    )
    parser.add_argument("--rounds", type=int, default=5, help="of each start")
    parser.add_argument("--starts", type=int, default=3, help="of every contender, anew")
    parser.add_argument("--steps", type=int, help="of a block; default at most 100, on a GPU 400")
    parser.add_argument("--images", type=int, help="so many of noise, in place of a data set")
    parser.add_argument("--markdown", action="store_true", help="for results/")
    options = parser.parse_args()
    if options.pythae and not shutil.which(options.pythae):
        parser.error(f"--pythae: there is no program {options.pythae}")
    return options


def measure(course: Course, options: argparse.Namespace, folder: Path, status: Status) -> None:
    """Prints the table of a course."""
    case = f"{course.network}, batch {course.batch_size}, threads {course.threads}"
    races: list[Race] = []
    for start in range(options.starts):
        found = race(
            contenders(options, course.network),
            course,
            folder / str(start),
            rounds=options.rounds,
            steps=races[0].steps if races else options.steps,
            say=lambda doing, nth=start + 1: status.update(f"{case}, start {nth}: {doing}"),  # type: ignore[misc]
        )
        races.append(found)
    found = pooled(races)
    rounds = f"{options.starts} x {options.rounds} x {found.steps} steps"
    heading = f"{case}, {course.device}; {rounds}"
    show(heading, COLUMNS, list(rows(found)), failures(found), options.markdown)


def main() -> None:
    options = parse()
    if options.markdown:
        print(f"{machine(options.device)}; {date.today()}")
    with TemporaryDirectory() as name, Console(stderr=True).status("") as status:
        for network in options.network:
            prepared = prepare(network, Path(name), options.images)
            prepared = replace(prepared, device=options.device, pythae=options.pythae)
            for batch_size, threads in product(options.batch, options.threads):
                course = replace(prepared, batch_size=batch_size, threads=threads)
                folder = Path(name) / f"{network}_{batch_size}_{threads}"
                measure(course, options, folder, status)


if __name__ == "__main__":
    try:
        main()
    except ContenderError as error:
        sys.exit(f"{REFERENCE} failed: {error}")
