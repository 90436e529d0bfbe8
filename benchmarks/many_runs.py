"""Evaluates 24 small runs by one command, and 4 by one each: python benchmarks/many_runs.py.

The runs are beta-VAEs on mnist_5k that have made a few steps, of which the evaluation is tiny, so
what is left is what every command does anew: imports, data, classifier and its features. The time
of one command each is that of 4, times 6; two of them are before and two after the one command. All
have one thread. Memory is the largest resident set; it is compared with that of 4 runs by one
command.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from tables import show

from vaelab.commands import train

ROOT = Path(__file__).resolve().parents[1]
RUNS, ALONE = 24, 4
TRAIN = [
    *("data=mnist_5k", "model=beta_vae", "model.latent_dim=4", "logger=none"),
    *("model.encoder.hidden=[32]", "model.decoder.hidden=[32]", "trainer.max_steps=4"),
]
EVALUATE = [
    *("what=[likelihood,latents,samples]", "num_samples=10"),
    *("metrics.samples.count=500", "metrics.samples.looked_up=100"),
]


@dataclass
class Cost:
    """What a command took: seconds on the clock, of processors, and megabytes at most."""

    wall: float
    cpu: float
    memory: float


def run_command(script: str, *settings: str) -> Cost:
    """Runs a command with one thread to its end and returns its cost; raises if it fails."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, script, *settings], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{script} ended with {process.returncode}")
    wall = time.monotonic() - began
    return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1000)


def evaluation(run: Path) -> dict[str, object]:
    """Returns a run's evaluation.json without the command that made it."""
    content: dict[str, object] = json.loads((run / "evaluation.json").read_text())
    return content | {"command": None}


def train_runs(folder: Path) -> list[Path]:
    """Trains the runs that the folder lacks, in this process, and returns their folders."""
    betas = [0.25 * (i + 1) for i in range(RUNS)]
    runs = [folder / f"beta-{beta:g}" for beta in betas]
    for run, beta in zip(runs, betas, strict=True):
        if not (run / "results.json").exists():
            sys.argv = ["train.py", *TRAIN, f"model.beta={beta}", f"hydra.run.dir={run}"]
            with redirect_stdout(StringIO()):
                train.main()
    return runs


def main() -> None:
    """Trains and evaluates the runs, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, help="where the runs are, or are to be; kept")
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    with TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        runs = train_runs(folder)
        again = [*EVALUATE, "rerun=true"]
        run_command("evaluate.py", f"run={runs[0]}", *again)  # trains the classifier, once
        alone, found = [], {}

        def evaluate_alone(run: Path) -> None:
            """Evaluates a run by a command of its own."""
            alone.append(run_command("evaluate.py", f"run={run}", *again))
            found[run] = evaluation(run)

        for run in runs[: ALONE // 2]:
            evaluate_alone(run)
        together = run_command("evaluate.py", f"run={folder}", *again)
        numbers = {run: evaluation(run) for run in runs}
        for run in runs[-(ALONE - ALONE // 2) :]:
            evaluate_alone(run)
        few = run_command("evaluate.py", f"run={','.join(map(str, runs[:ALONE]))}", *again)
    factor = len(runs) / len(alone)
    each = Cost(
        factor * sum(cost.wall for cost in alone),
        factor * sum(cost.cpu for cost in alone),
        max(cost.memory for cost in alone),
    )
    rows = [
        [name, f"{cost.wall:.0f}", f"{cost.cpu:.0f}", f"{cost.memory:.0f}"]
        for name, cost in (
            (f"{len(runs)} runs, one command", together),
            (f"{len(runs)} runs, one command each, by {len(alone)} of them", each),
            (f"{ALONE} runs, one command", few),
        )
    ]
    ratio = f"{each.wall / together.wall:.1f} times ({each.cpu / together.cpu:.1f} of processors)"
    same = sum(numbers[run] == content for run, content in found.items())
    columns = ["", "s", "processor s", "MB"]
    notes = f"One command is {ratio} as fast; the same numbers: {same} of {len(found)} runs."
    show("Evaluation of many runs", columns, rows, notes, options.markdown)


if __name__ == "__main__":
    main()
