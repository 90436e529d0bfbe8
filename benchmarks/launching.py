"""What a sweep costs beside its jobs: python benchmarks/launching.py [jobs].

An empty task is started so many times by hand, and as the jobs of a sweep, one at a time and as
many as there are cores; the sweep's own start and its checks are counted.
"""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

EMPTY = """
from vaelab.commands import cli

@cli.task("train")
def main(cfg):
    pass

main()
"""


def seconds(folder: Path, *arguments: str) -> float:
    """Of `python train.py` with these arguments, where train.py is the empty task."""
    began = perf_counter()
    command = [sys.executable, "train.py", *arguments]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return perf_counter() - began


def main(jobs: int) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "train.py").write_text(EMPTY)
        seconds(folder, "hydra.run.dir=warm")
        bare = sum(seconds(folder, f"seed={i}", f"hydra.run.dir=bare/{i}") for i in range(jobs))
        print(f"{jobs} bare starts       {bare:6.1f} s")
        for slots in ("1", "auto"):
            given = [f"hydra.launcher.n_jobs={slots}", f"hydra.sweep.dir=sweep_{slots}"]
            swept = seconds(folder, "-m", f"seed=range({jobs})", *given)
            own = (swept - bare) / jobs
            print(f"a sweep, n_jobs={slots:4}  {swept:6.1f} s, {swept / bare:.2f} times", end="")
            print(f", {own:.2f} s a job" if slots == "1" else "")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
