"""How soon the jobs of a sweep start, forked and fresh: python benchmarks/job_start.py [jobs].

Times from the order of a job to its first training step, medians of five jobs; the memory of a job
while another one runs: its own (USS), and with its part of what it shares (PSS); then a whole sweep
of so many jobs (default 24) of one epoch, two at a time, with the launcher's start. Processor
seconds, of the job until that step or of the sweep with all its processes, tell more than times
where others share the machine. Each pair is measured one after the other, fresh first.
"""

import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from tables import show

from vaelab.sweeps.fork_server import ForkServer
from vaelab.sweeps.process import Child, Order, Process, start_fresh

ROOT = Path(__file__).resolve().parents[1]
TRAIN = [sys.executable, str(ROOT / "train.py")]
VARIABLES = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "benchmarks")}
REPEATS = 5
JOB = ("first training step", "processor seconds until then", "end of one epoch")
ONE_EPOCH = "trainer.max_epochs=1"
KINDS = {"default": [ONE_EPOCH], "fast": ["trainer=fast", ONE_EPOCH]}


def order(folder: Path, *overrides: str) -> Order:
    """Returns a job that writes the time of its first training step."""
    words = [*TRAIN, *overrides, "hydra.mode=RUN", f"hydra.run.dir={folder}"]
    words += ["+callbacks.first._target_=first_step.FirstStep"]
    words += [f"+callbacks.first.file={folder}/first"]
    return Order(words, folder / "job.log", folder / "alive", dict(VARIABLES))


def seconds_of_jobs(
    folder: Path, start: Callable[[Order], Child], overrides: list[str]
) -> list[float]:
    """Returns the medians, of jobs one by one, of what JOB names."""
    found = []
    for i in range(REPEATS):
        began = time.time()
        given = order(folder / str(i), *overrides)
        process = Process(given, start)
        if process.wait():
            sys.exit(given.log.read_text())
        ended = time.time() - began
        first, processor = map(float, (given.log.parent / "first").read_text().split())
        found.append((first - began, processor, ended))
    return [median(column) for column in zip(*found, strict=True)]


def memory_of_second(folder: Path, start: Callable[[Order], Child]) -> tuple[float, float]:
    """Returns USS and PSS in MB of the second of two jobs that train at once."""
    orders = [order(folder / str(i), "trainer.max_epochs=1000") for i in range(2)]
    running = [Process(given, start) for given in orders]
    while not all((given.log.parent / "first").exists() for given in orders):
        time.sleep(0.1)
    time.sleep(5.0)
    text = Path(f"/proc/{running[1].child.pid}/smaps_rollup").read_text()
    kilobytes = {key: int(size) for key, size in re.findall(r"(\w+): +(\d+) kB", text)}
    for process in running:
        process.kill()
        process.wait()
    own = kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]
    return own / 1000, kilobytes["Pss"] / 1000


def seconds_of_sweep(folder: Path, start: str, jobs: int) -> list[float]:
    """Returns the seconds and the processor seconds of a sweep, two jobs of an epoch at a time."""
    began, before = time.time(), processor_seconds()
    words = [f"seed=range({jobs})", ONE_EPOCH, "hydra.launcher.n_jobs=2"]
    words += [f"hydra.launcher.start={start}", f"hydra.sweep.dir={folder}"]
    subprocess.run(
        [*TRAIN, "-m", *words], check=True, stdout=subprocess.DEVNULL, env=os.environ | VARIABLES
    )
    return [time.time() - began, processor_seconds() - before]


def processor_seconds() -> float:
    """Returns the processor seconds of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def row(name: str, unit: str, fresh: float, fork: float) -> list[str]:
    """Returns a row of the table."""
    return [name, unit, f"{fresh:.2f}", f"{fork:.2f}", f"{fresh / fork:.1f}"]


def main(jobs: int) -> None:
    """Measures and prints the table."""
    rows = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        began = time.time()
        server = ForkServer(TRAIN, VARIABLES, os.getcwd())
        while server.is_starting():
            time.sleep(0.01)
        print(f"the server is ready after {time.time() - began:.1f} s")
        starts = {"fresh": start_fresh, "fork": server.start}
        for kind, overrides in KINDS.items():
            found = [seconds_of_jobs(folder / k / kind, s, overrides) for k, s in starts.items()]
            for i, what in enumerate(JOB):
                rows.append(row(f"{kind}: {what}", "s", found[0][i], found[1][i]))
        found = [memory_of_second(folder / k / "memory", s) for k, s in starts.items()]
        for i, what in enumerate(("its own", "with its part of what is shared")):
            rows.append(row(f"memory of a second job, {what}", "MB", found[0][i], found[1][i]))
        server.close()
        if jobs:
            found = [seconds_of_sweep(folder / f"sweep_{k}", k, jobs) for k in starts]
            for i, what in enumerate(("seconds", "processor seconds")):
                rows.append(row(f"sweep of {jobs} jobs, {what}", "s", found[0][i], found[1][i]))
    show("Starts of jobs", ["", "unit", "fresh", "fork", "ratio"], rows, "", as_markdown=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 24)
