"""A sweep over seeds whose jobs share one GPU, against jobs one at a time."""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import mean
from time import monotonic

from courses import prepare_images
from race import ROOT, Course
from rows import DEVICE, FOLDER, IS_DRY, tell_note, tell_row

SWEEPS = [(1, 1), (8, 4)]  # jobs in all, and at once
DRY_SWEEPS = [(1, 1), (1, 2)]
EPOCHS = 1 if IS_DRY else 4


def launcher(at_once: int) -> list[str]:
    """Returns the overrides by which so many jobs run at once, on one GPU or on the processor."""
    if DEVICE == "cpu":
        return [f"hydra.launcher.n_jobs={at_once}"]
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    return [f"hydra.launcher.gpus=[{gpu}]", f"hydra.launcher.jobs_per_gpu={at_once}"]


def run_sweep(course: Course, jobs: int, at_once: int, folder: Path) -> float:
    """Runs a sweep to its end; returns its wall seconds. Raises CalledProcessError if it fails."""
    seeds = ",".join(str(seed) for seed in range(1, jobs + 1))
    given = [*course.overrides(), "compile=false", "precision=32", f"trainer.max_epochs={EPOCHS}"]
    given += [f"seed={seeds}", f"hydra.sweep.dir={folder}", *launcher(at_once)]
    given += ["callbacks.board=null", "logger=none"] if IS_DRY else []
    began = monotonic()
    subprocess.run([sys.executable, "train.py", "-m", *given], cwd=ROOT, check=True)
    return monotonic() - began


def main() -> None:
    course = prepare_images("mlp")
    speeds, paces = [], []
    for jobs, at_once in DRY_SWEEPS if IS_DRY else SWEEPS:
        folder = FOLDER / f"sweep_{at_once}"
        seconds = run_sweep(course, jobs, at_once, folder)
        results = [json.loads(path.read_text()) for path in folder.glob("*/results.json")]
        assert len(results) == jobs, f"{len(results)} of {jobs} jobs have results"
        speed = mean(result["train/images_per_second"] for result in results)
        speeds.append(min(jobs, at_once) * speed)
        paces.append(60 * jobs / seconds)
        cells = {
            "": f"{jobs} {'jobs' if jobs > 1 else 'job'}, {at_once} at once",
            "jobs a minute": paces[-1],
        }
        tell_row("", {**cells, "images/s, all jobs together": speeds[-1]})
    shown = f"{paces[1] / paces[0]:.2f} times the jobs a minute"
    tell_note(f"{shown}, {speeds[1] / speeds[0]:.2f} times the images/s, of jobs one at a time")
    tell_note(f"A job: mlp, {EPOCHS} epochs, its start and pictures included; images/s without.")


if __name__ == "__main__":
    main()
