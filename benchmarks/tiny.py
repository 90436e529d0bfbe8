"""A training that is tiny, for scripts that try what is around it, and their table of promises."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from vaelab.training.json_files import read_json

ROOT = Path(__file__).parents[1]
LAYERS = ["network=mlp", "model.encoder.hidden=[8]", "model.decoder.hidden=[8]"]
SHORT = ["trainer.max_epochs=20", "data.batch_size=16"]
"""Overrides of a job of 80 steps: 20 seconds and its start, at a pace of 0.25."""
PACE = """
import time
from lightning import Callback


class Pace(Callback):
    '''Callback that makes each training step last some seconds longer.'''

    def __init__(self, seconds):
        self.seconds = seconds

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        time.sleep(self.seconds)
"""


class Workplace:
    """A folder with a tiny data set, in which `train.py` is started.

    Args:
        folder: Where data, runs and sweeps are written; created if it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        images = np.random.default_rng(0).integers(0, 256, (80, 1, 8, 8), dtype=np.uint8)
        np.savez(self.folder / "tiny.npz", train_images=images)
        (self.folder / "pace.py").write_text(PACE)
        self.environment = dict(os.environ)
        self.environment["PYTHONPATH"] = f"{self.folder}:{self.environment.get('PYTHONPATH', '')}"
        self.launchers: list[subprocess.Popen[bytes]] = []

    def command(self, *overrides: str, pace: float = 0.0) -> list[str]:
        """Returns the command of a tiny training, of 64 images."""
        data = ["data=arrays", f"data.source.path={self.folder / 'tiny.npz'}"]
        waits = ["+callbacks.pace._target_=pace.Pace", f"+callbacks.pace.seconds={pace}"]
        fixed = [*data, *LAYERS, "model.latent_dim=2", *(waits if pace else [])]
        return [sys.executable, str(ROOT / "train.py"), *fixed, *overrides]

    def start(self, output: str, *overrides: str, pace: float = 0.0) -> subprocess.Popen[bytes]:
        """Starts a training or, with `-m` among the overrides, a sweep; output goes to a file."""
        return self.start_program(output, *self.command(*overrides, pace=pace)[1:])

    def start_program(self, output: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Starts a Python program, which `end_launchers` will kill; output goes to a file."""
        with (self.folder / output).open("wb") as file:
            launcher = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=self.folder,
                env=self.environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.launchers.append(launcher)
        return launcher

    def run(self, output: str, *overrides: str, pace: float = 0.0, seconds: float = 600) -> int:
        """Starts a training or a sweep, waits for its end and returns its exit code."""
        return self.start(output, *overrides, pace=pace).wait(seconds)

    def printed(self, output: str) -> str:
        """Returns what a started command has printed."""
        return (self.folder / output).read_text(errors="replace")

    def start_sweep(
        self, name: str, launcher: str, *overrides: str, pace: float = 0.25
    ) -> subprocess.Popen[bytes]:
        """Starts a sweep in the folder of this name, whose output goes to `name.out`."""
        fixed = ["-m", f"hydra/launcher={launcher}", f"hydra.sweep.dir={name}", *SHORT]
        return self.start(f"{name}.out", *fixed, *overrides, pace=pace)

    def train_by_hand(self) -> None:
        """Trains seeds 1, 2 and 3 undisturbed, for comparison; skips those that are finished."""
        for seed in (1, 2, 3):
            if (self.folder / "by_hand" / f"seed-{seed}" / "results.json").exists():
                continue
            given = ["trainer=cpu", *SHORT, f"seed={seed}", f"hydra.run.dir=by_hand/seed-{seed}"]
            assert self.run("by_hand.out", *given) == 0, self.printed("by_hand.out")

    def is_as_by_hand(self, sweep: str, *seeds: int) -> bool:
        """True if the runs of these seeds in a sweep have the bits of those by hand."""
        by_hand, folder = self.folder / "by_hand", self.folder / sweep
        try:
            return all(has_same_bits(folder / f"seed-{n}", by_hand / f"seed-{n}") for n in seeds)
        except FileNotFoundError:
            return False

    def wait_for_epoch(self, run: str, number: int) -> None:
        """Waits until a run is in this epoch or a later one; raises TimeoutError."""
        progress = self.folder / run / "progress.json"

        def has_trained() -> bool:
            return read_json(progress).get("epoch", 0) >= number

        wait_until(has_trained, 240, f"{run} is in epoch {number}")

    def said(self, output: str, beginning: str) -> list[str]:
        """Returns the lines of a command's output that begin with a word."""
        return [line for line in self.printed(output).splitlines() if line.startswith(beginning)]

    def left(self, sweep: str) -> dict[str, object]:
        """Returns what a sweep has left behind: processes of jobs, and claims."""
        folder = self.folder / sweep
        return {
            "processes left": len(job_processes(folder)),
            "claims left": len(list((folder / ".claims").glob("*"))),
        }

    def end_launchers(self) -> None:
        """Kills the launchers that still run, so that their jobs stop as well."""
        for launcher in self.launchers:
            launcher.kill()
            launcher.wait()


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> float:
    """Waits for a condition and returns how many seconds it took; raises TimeoutError."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(0.1)
    return time.monotonic() - began


def has_same_bits(folder: Path, other: Path) -> bool:
    """True if two finished runs have equal weights, optimizer states and results."""
    states = [
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (folder, other)
    ]
    values = [json.loads((run / "results.json").read_text()) for run in (folder, other)]
    names = [name for name in values[0] if name.startswith(("val/", "test/"))]
    return all(
        is_equal(states[0][part], states[1][part]) for part in ("state_dict", "optimizer_states")
    ) and all(values[0][name] == values[1][name] for name in [*names, "steps"])


def is_equal(one: object, other: object) -> bool:
    """True if two trees of dictionaries, lists, tensors and numbers are equal, bit by bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_equal(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(is_equal, one, other))
    return bool(one == other)


def job_processes(folder: Path) -> list[int]:
    """Returns the ids of the processes that train in a sweep folder, by their command lines."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            words = (process / "cmdline").read_text().split("\0")
            runs = [word.partition("=")[2] for word in words if word.startswith("hydra.run.dir=")]
            here = Path(os.readlink(process / "cwd"))
            if any((here / run.strip("'")).is_relative_to(folder) for run in runs):
                found.append(int(process.name))
    return found


def descendants(pid: int) -> list[int]:
    """Returns the ids of a process's children, their children and so on."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(path.parent.name))
    found = list(children.get(pid, ()))
    for child in found:
        found += children.get(child, ())
    return found


class Promises:
    """The table of a script: each promise, what was done to try it, and what was seen."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.rows: list[tuple[str, str, str]] = []
        self.broken = 0

    def add(
        self, promise: str, done: str, seen: dict[str, object], expected: dict[str, object]
    ) -> None:
        """Adds a row with what was seen; one that differs from the expected counts as broken."""
        wrong = [name for name, value in expected.items() if seen.get(name) != value]
        self.broken += bool(wrong)
        texts = [f"{name} {value}" for name, value in seen.items()]
        verdict = f"NOT KEPT ({', '.join(wrong)}): " if wrong else ""
        self.rows.append((promise, done, verdict + ", ".join(texts)))
        print(f"{promise}: {self.rows[-1][2]}", flush=True)

    def print_table(self) -> None:
        """Prints the table as Markdown, for `results/reliability.md`."""
        rows = [("promise", "done", "seen"), ("---", "---", "---"), *self.rows]
        print(f"\n## {self.title}\n")
        for row in rows:
            print(f"| {' | '.join(row)} |")
        kept = len(self.rows) - self.broken
        print(f"\n{kept} of {len(self.rows)} promises kept", flush=True)
