"""Stops runs by signals at random moments and resumes them: python benchmarks/stopping.py.

Each run is a small beta-VAE on mnist_5k with an annealed beta, in one process or in two (DDP). It
gets its signal at a moment drawn uniformly from the duration of an undisturbed run, or, every
second run (with --in-training every run), from the seconds after its first training step. Then
the same command is given again, and the final weights are compared with those of the undisturbed
run.
"""

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from tables import show

ROOT = Path(__file__).resolve().parents[1]
RUN = [
    *("model=beta_vae", "annealing=linear", "annealing.duration=0.9", "logger=none"),
    *("model.encoder.hidden=[32]", "model.decoder.hidden=[32]", "model.latent_dim=4"),
    *("data.batch_size=64", "evaluate=[latents]"),
]
HANG = 120.0  # seconds after a signal
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL)
CODES = {signal.SIGTERM: {143}, signal.SIGHUP: {143}, signal.SIGINT: {130}}
COLUMNS = ("run", "stops", "expected end", "hangs", "tracebacks", "left behind", "same bits")


@dataclass
class Tally:
    """Counts of one kind of stop; `codes` has every exit code, `slowest` the seconds to the end."""

    stops: int = 0
    expected: int = 0
    hangs: int = 0
    tracebacks: int = 0
    left: int = 0
    same: int = 0
    slowest: float = 0.0
    codes: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    def row(self, name: str) -> list[str]:
        codes = ", ".join(f"{code}: {count}" for code, count in sorted(self.codes.items()))
        counts = (self.hangs, self.tracebacks, self.left, self.same)
        return [name, str(self.stops), f"{self.expected} ({codes})", *map(str, counts)]


def start(folder: Path, data: Path, trainer: str, epochs: int) -> subprocess.Popen:
    """Starts a run as leader of its own process group; its output goes to the file `output`."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = [f"hydra.run.dir={folder}", f"paths.data={data}", f"trainer.max_epochs={epochs}"]
    return subprocess.Popen(
        [sys.executable, "train.py", *RUN, f"trainer={trainer}", *settings],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=(folder / "output").open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def session_members(leader: int) -> list[int]:
    """Returns the ids of the living processes that `leader` began, itself first if it lives."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            after = status.read_text().rpartition(")")[2].split()
        except OSError:  # ended meanwhile
            continue
        if int(after[3]) == leader and after[0] not in "ZX":
            found.append(int(status.parent.name))
    return sorted(found, key=lambda number: (number != leader, number))


def target(process: subprocess.Popen, whom: str) -> int | None:
    """Returns the process to signal, waiting for rank 1 to exist; None if the run has ended."""
    while whom == "rank 1" and process.poll() is None:
        for number in session_members(process.pid)[1:]:
            try:
                command = Path(f"/proc/{number}/cmdline").read_bytes()
            except OSError:
                continue
            if b"train.py" in command:
                return number
        time.sleep(0.05)
    return process.pid


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def stop(
    process: subprocess.Popen, number: int, whom: str, moment: float, mark: Path | None
) -> tuple[int | None, float]:
    """Sends a signal after `moment` seconds; returns exit code, None for a hang, and seconds.

    With a `mark` the moment counts from when this file exists.
    """
    while mark and not mark.exists() and process.poll() is None:
        time.sleep(0.02)
    time.sleep(moment)
    chosen = target(process, whom)
    with suppress(ProcessLookupError):
        (os.killpg if whom == "both" else os.kill)(chosen, number)
    sent = time.monotonic()
    try:
        return process.wait(HANG), time.monotonic() - sent
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return None, HANG


def judge(
    tally: Tally,
    folder: Path,
    data: Path,
    case: tuple,
    moment: float,
    in_training: bool,
    reference: dict,
) -> None:
    """Stops one run, resumes it, and counts what came of both; prints a line for the log."""
    trainer, whom, number, epochs = case
    process = start(folder, data, trainer, epochs)
    code, seconds = stop(
        process, number, whom, moment, folder / "progress.json" if in_training else None
    )
    time.sleep(1.0)  # for the other processes to end
    left = session_members(process.pid)
    output = (folder / "output").read_text()
    wrong = bool(re.search(r"^Traceback|terminate called", output, re.M))
    if left:
        os.killpg(process.pid, signal.SIGKILL)
    wanted = CODES.get(number, {1} if whom == "rank 1" else {-9}) | {0}
    code_again = start(folder, data, trainer, epochs).wait(600)
    measured = json.loads((folder / "results.json").read_text()).keys() if code_again == 0 else {}
    same = code_again == 0 and "unmeasured" not in measured
    if same:
        found = weights(folder)
        same = all(torch.equal(found[name], reference[name]) for name in reference)
    tally.stops += 1
    tally.codes[-999 if code is None else code] += 1
    tally.expected += code in wanted
    tally.hangs += code is None
    tally.tracebacks += wrong
    tally.left += bool(left)
    tally.same += same
    tally.slowest = max(tally.slowest, seconds)
    last = output.strip().splitlines()[-1:] or [""]
    where = " of training" if in_training else ""
    what = f"{trainer} {whom} {signal.Signals(number).name} at {moment:.1f} s{where}"
    bad = "" if code in wanted and same and not wrong and not left else f"  BAD {folder}"
    seen = f"{code} after {seconds:.1f} s, again {code_again}: {last[0][:60]}"
    print(f"{what}: {seen}{bad}", flush=True)


def cases(kinds: list[str], epochs: int) -> list[tuple]:
    """Returns (trainer, whom, signal, epochs) of every kind of stop asked for."""
    every = [("cpu", "rank 0", n, epochs) for n in SIGNALS]
    every += [("ddp_cpu", *pair, epochs) for pair in product(("rank 0", "rank 1", "both"), SIGNALS)]
    named = {f"{t}/{whom}/{signal.Signals(n).name}": (t, whom, n, e) for t, whom, n, e in every}
    return [case for name, case in named.items() if any(kind in name for kind in kinds)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=4, help="stops of each kind")
    parser.add_argument("--kinds", nargs="+", default=["/"], help="parts of TRAINER/WHOM/SIGNAL")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=4.0, help="of training, to stop in")
    parser.add_argument("--in-training", action="store_true", help="every stop, not each second")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no stop after these")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--keep", type=Path, help="folder for the runs, which are then kept")
    given = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGHUP):  # a shell's `&` and nohup have them ignored
        signal.signal(number, signal.SIG_DFL)
    draw = random.Random(given.seed)
    began = time.monotonic()
    with TemporaryDirectory() as made:
        top = given.keep or Path(made)
        chosen = cases(given.kinds, given.epochs)
        references, durations = {}, {}
        for trainer in sorted({case[0] for case in chosen}):
            start(top / "warm", top / "data", trainer, 1).wait()
            begun = time.monotonic()
            assert start(top / trainer, top / "data", trainer, given.epochs).wait() == 0
            durations[trainer] = time.monotonic() - begun
            references[trainer] = weights(top / trainer)
        tallies = {case: Tally() for case in chosen}

        def attempt(number: int, case: tuple, moment: float) -> None:
            """Makes one stop, unless the time is over."""
            if time.monotonic() - began < 60 * given.minutes:
                folder = top / f"{number}-{case[0]}-{case[1][-1]}-{case[2]}"
                begun, reference = given.in_training or number % 2 == 1, references[case[0]]
                moment = moment * given.seconds if begun else moment * durations[case[0]]
                judge(tallies[case], folder, top / "data", case, moment, begun, reference)

        with ThreadPoolExecutor(given.jobs) as pool:
            waiting = [
                pool.submit(attempt, number, case, draw.random())
                for number in range(given.times)
                for case in chosen
            ]
            for future in waiting:
                future.result()
    rows = [
        tally.row(f"{case[0]}, {signal.Signals(case[2]).name} to {case[1]}")
        for case, tally in tallies.items()
        if tally.stops
    ]
    slowest = max((tally.slowest for tally in tallies.values()), default=0)
    notes = f"An exit code of 0 is a run that had ended. Slowest end: {slowest:.1f} s."
    show("Stops at random moments", COLUMNS, rows, notes, given.markdown)


if __name__ == "__main__":
    main()
