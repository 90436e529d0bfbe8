"""Long runs, and what grows in them: python benchmarks/soak.py [--epochs 10000] [--jobs 500].

A tiny training of many epochs, and one sweep of many jobs, which write their results and end.
Memory, open handles, threads and file sizes are read from outside, of the training's process and
of the launcher's.
"""

import argparse
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tables import show
from tiny import Workplace

from vaelab.training.json_files import read_json

MILESTONES = (0.01, 0.1, 0.25, 0.5, 0.75, 1.0)
SHORT_TASK = """
import json
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from vaelab.commands import cli


@cli.task("train")
def main(cfg):
    folder = Path(HydraConfig.get().runtime.output_dir)
    (folder / ".hydra").mkdir(exist_ok=True)
    OmegaConf.save(cfg, folder / ".hydra" / "config.yaml")
    (folder / "results.json").write_text(json.dumps({"val/elbo": -cfg.seed}))


main()
"""
COLUMNS = (
    *("seconds", "memory MB", "handles", "threads", "files", "event files MB"),
    *("checkpoints MB", "log and screen KB"),
)


def process_figures(pid: int) -> list[str]:
    """Returns resident memory in MB, open handles and threads of a process."""
    lines = (Path("/proc") / str(pid) / "status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    memory = int(status["VmRSS"].split()[0]) / 1024
    handles = len(list((Path("/proc") / str(pid) / "fd").iterdir()))
    return [f"{memory:.0f}", str(handles), status["Threads"].strip()]


def folder_figures(folder: Path, screen: Path) -> list[str]:
    """Returns the number of files in a folder, and sizes of event files, checkpoints and logs."""
    sizes = {}
    for path in folder.rglob("*"):
        try:
            if path.is_file():
                sizes[path] = path.stat().st_size
        except FileNotFoundError:  # a temporary file, renamed meanwhile
            continue

    def megabytes(part: str) -> str:
        return f"{sum(size for path, size in sizes.items() if part in path.name) / 1e6:.1f}"

    logs = sum(size for path, size in sizes.items() if path.suffix == ".log")
    printed = (logs + screen.stat().st_size) / 1e3
    return [str(len(sizes)), megabytes("tfevents"), megabytes(".ckpt"), f"{printed:.0f}"]


def watch(
    process: subprocess.Popen[bytes],
    done: Callable[[], int],
    total: int,
    figures: Callable[[], list[str]],
) -> list[tuple[str, ...]]:
    """Waits for a process; returns a row of figures at each milestone of what is done.

    A milestone is late by up to a second, since progress is written once a second. The last row is
    of the last look at the running process.
    """
    began, rows, due = time.monotonic(), [], [max(1, round(share * total)) for share in MILESTONES]
    latest: tuple[str, ...] = ()
    while process.poll() is None:
        try:
            count = done()
            latest = (f"{count:,}", f"{time.monotonic() - began:.0f}", *figures())
        except (OSError, KeyError):  # not begun yet, or just ended
            count = 0
        if due and count >= due[0]:
            due = [milestone for milestone in due if milestone > count]
            rows.append(latest)
            print("  ".join(latest), flush=True)
        time.sleep(0.5)
    if process.returncode:
        raise SystemExit(f"exit code {process.returncode}")
    return rows if latest in rows else [*rows, latest]


def soak_epochs(place: Workplace, epochs: int, overrides: Sequence[str]) -> None:
    """Trains for many epochs and prints a table of what grows."""
    run = place.folder / "run"
    process = place.start(
        "run.out", "trainer=cpu", f"trainer.max_epochs={epochs}", f"hydra.run.dir={run}", *overrides
    )
    rows = watch(
        process,
        lambda: int(read_json(run / "progress.json")["epoch"]),
        epochs,
        lambda: process_figures(process.pid) + folder_figures(run, place.folder / "run.out"),
    )
    command = " ".join(["trainer=cpu", f"trainer.max_epochs={epochs}", *overrides])
    show(f"One training, `{command}`", ("epochs", *COLUMNS), rows, "", True)


def soak_jobs(place: Workplace, jobs: int) -> None:
    """Runs one sweep of many jobs that end at once; prints a table of what its launcher takes."""
    (place.folder / "short.py").write_text(SHORT_TASK)
    sweep = place.folder / "sweep"
    settings = ["-m", f"seed=range({jobs})", f"hydra.sweep.dir={sweep}"]
    process = place.start_program("sweep.out", str(place.folder / "short.py"), *settings)
    rows = watch(
        process,
        lambda: len(place.said("sweep.out", "done ")),
        jobs,
        lambda: process_figures(process.pid) + folder_figures(sweep, place.folder / "sweep.out"),
    )
    index = (sweep / "sweep.json").stat().st_size / 1e3
    last = next(line for line in reversed(place.said("sweep.out", str(jobs))))
    notes = f"`sweep.json` has {index:.0f} KB; {last}"
    show(f"The launcher of {jobs} jobs", ("jobs done", *COLUMNS), rows, notes, True)


def main() -> None:
    """Runs both, or what has a number above zero, in a temporary folder or the given one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10_000, help="of the training; 0 for none")
    parser.add_argument("--jobs", type=int, default=500, help="of the sweep; 0 for none")
    parser.add_argument("--folder", type=Path, help="a new folder, which is kept")
    parser.add_argument("overrides", nargs="*", help="for the training, as logger=none")
    given = parser.parse_args()
    with TemporaryDirectory() as temporary:
        place = Workplace(given.folder or Path(temporary))
        try:
            if given.epochs:
                soak_epochs(place, given.epochs, given.overrides)
            if given.jobs:
                soak_jobs(place, given.jobs)
        finally:
            place.end_launchers()


if __name__ == "__main__":
    main()
