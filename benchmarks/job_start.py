"""How soon the jobs of a sweep start, forked and fresh: python benchmarks/job_start.py [jobs].

Four to six minutes on two quiet cores, with the default of 24 jobs. In this order, fresh first:

- Jobs of one epoch one by one, medians of REPEATS, with a server that is ready: seconds from the
  order to the end of the first training step and to the end of the process, and processor seconds
  of the job's process until that step.
- Two jobs that train at once: the proportional set size (PSS) of the second, in which a page that n
  processes share counts as 1/n, and the sum for both jobs and the server, which no fresh job needs.
- A whole sweep of so many jobs of one epoch, two at a time, by `python train.py -m`: wall time and
  processor seconds, with all that the launcher does and with the start of the server.

One thread a job. It ends with an error if a job that should be a fork is none.
"""

import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from tables import show

from vaelab.sweeps.fork_server import Fork, ForkServer
from vaelab.sweeps.process import Child, Order, Process, start_fresh

ROOT = Path(__file__).resolve().parents[1]
TRAIN = [sys.executable, str(ROOT / "train.py")]
VARIABLES = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "benchmarks")}
REPEATS = 3
JOB = (
    "order to first training step",
    "its processor seconds until then",
    "order to end of one epoch",
)
MEMORY = ("PSS of the second of two jobs", "PSS of both, and of the server")
SWEEP = ("wall time", "processor seconds")
ONE_EPOCH = "trainer.max_epochs=1"
KINDS = {"default": [ONE_EPOCH], "trainer=fast": ["trainer=fast", ONE_EPOCH]}


def order(folder: Path, *overrides: str) -> Order:
    """Returns a job that writes the time of its first training step."""
    words = [*TRAIN, *overrides, "hydra.mode=RUN", f"hydra.run.dir={folder}"]
    words += ["+callbacks.first._target_=first_step.FirstStep"]
    words += [f"+callbacks.first.file={folder}/first"]
    return Order(words, folder / "job.log", folder / "alive", dict(VARIABLES))


def start_job(given: Order, start: Callable[[Order], Child]) -> Process:
    """Starts a job; exits if it is not a fork and should be one."""
    process = Process(given, start)
    if start is not start_fresh and not isinstance(process.child, Fork):
        sys.exit(given.log.read_text())
    return process


def seconds_of_jobs(
    folder: Path, start: Callable[[Order], Child], overrides: list[str]
) -> list[float]:
    """Returns the medians, of jobs one by one, of what JOB names."""
    found = []
    for i in range(REPEATS):
        began = time.time()
        given = order(folder / str(i), *overrides)
        process = start_job(given, start)
        if process.wait():
            sys.exit(given.log.read_text())
        ended = time.time() - began
        first, processor = map(float, (given.log.parent / "first").read_text().split())
        found.append((first - began, processor, ended))
    return [median(column) for column in zip(*found, strict=True)]


def memory_of_two(
    folder: Path, start: Callable[[Order], Child], server: ForkServer
) -> tuple[float, float]:
    """Returns the PSS in MB of the second of two jobs that train at once, and of all processes.

    Those are both jobs and, unless they are fresh, the server.
    """
    orders = [order(folder / str(i), "trainer.max_epochs=1000") for i in range(2)]
    running = [start_job(given, start) for given in orders]
    while not all((given.log.parent / "first").exists() for given in orders):
        time.sleep(0.1)
    time.sleep(5.0)
    sizes = [proportional_set_size(process.child.pid) for process in running]
    if start is not start_fresh:
        sizes.append(proportional_set_size(server.process.pid))
    for process in running:
        process.kill()
        process.wait()
    return sizes[1], sum(sizes)


def proportional_set_size(pid: int) -> float:
    """Returns the PSS of a process in MB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    (kilobytes,) = re.findall(r"^Pss: +(\d+) kB", text, re.MULTILINE)
    return int(kilobytes) / 1000


def seconds_of_sweep(folder: Path, start: str, jobs: int) -> list[float]:
    """Returns the seconds and the processor seconds of a sweep, two jobs of an epoch at a time."""
    began, before = time.time(), processor_seconds()
    words = [f"seed=range({jobs})", ONE_EPOCH, "hydra.launcher.n_jobs=2"]
    words += [f"hydra.launcher.start={start}", f"hydra.sweep.dir={folder}"]
    subprocess.run(
        [*TRAIN, "-m", *words], check=True, stdout=subprocess.DEVNULL, env=os.environ | VARIABLES
    )
    for log in folder.glob("*/job.log"):
        if log.read_text().startswith("started as a fresh process"):
            sys.exit(log.read_text())
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

    def add(unit: str, names: Sequence[str], found: Sequence[Sequence[float]]) -> None:
        """Adds and prints a row for each name, from the numbers of fresh jobs and of forks."""
        for name, fresh, fork in zip(names, *found, strict=True):
            rows.append(row(name, unit, fresh, fork))
            print(*rows[-1], flush=True)

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
            add("s", [f"{kind}: {what}" for what in JOB], found)
        add("MB", MEMORY, [memory_of_two(folder / k, s, server) for k, s in starts.items()])
        server.close()
        if jobs:
            found = [seconds_of_sweep(folder / f"sweep_{k}", k, jobs) for k in starts]
            add("s", [f"sweep of {jobs} jobs: {what}" for what in SWEEP], found)
    show("Starts of jobs", ["", "unit", "fresh", "fork", "ratio"], rows, "", as_markdown=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 24)
