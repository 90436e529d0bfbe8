"""Contenders that train in turn, each a process of its own.

A round is one block of steps of each, one after the other and in every other round the other way
round, so that a machine whose speed drifts harms all alike. `contenders/turns.py` has what the
two sides say to each other.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from math import inf
from pathlib import Path
from statistics import median, quantiles
from time import monotonic
from typing import Any

from vaelab.runs.folder import processor_name

ROOT = Path(__file__).parents[1]
CONTENDERS = Path(__file__).parent / "contenders"
REFERENCE = "by_hand"
STEPS = {"cpu": 100, "cuda": 400}  # of a block, at most
BLOCK_SECONDS = 1.5  # of a block by hand, about and at most
DATA_SETS = {  # and their images for training
    "mlp": ("MNIST", 55_000),
    "conv": ("CIFAR10", 45_000),
    "resnet": ("CIFAR10", 45_000),
}
LATENTS = {"mlp": 20, "conv": 128, "resnet": 128}
OURS = {  # in the precision of the others, which trainer=gpu is not
    "vaelab": ["compile=false", "precision=32"],
    "vaelab_compiled": ["compile=true", "precision=32"],
    "vaelab_bf16": ["compile=true", "precision=bf16"],
}


class ContenderError(Exception):
    """A contender ended before it was told to; in words why."""


@dataclass(frozen=True)
class Course:
    """What all contenders of a race train, and on what.

    Args:
        network: mlp, with one hidden layer on each side, conv or resnet.
        images: The .npz that they are in.
        count: How many of them there are for training, at the least.
        data: The overrides by which `train.py` has the same images.
    """

    network: str
    images: Path
    count: int
    data: tuple[str, ...]
    batch_size: int = 128
    threads: int = 1
    device: str = "cpu"
    latents: int = 20
    hidden: int = 400
    pythae: str | None = None  # the Python of an environment that has it

    def command(self, name: str, folder: Path) -> list[str]:
        """What starts a contender, which leaves what it leaves in `folder`."""
        if name == "pythae":
            return [self.pythae or sys.executable, str(CONTENDERS / "with_pythae.py")]
        if name == "lightning":
            return [sys.executable, str(CONTENDERS / "with_lightning.py")]
        if name in OURS:
            ours = [*self.overrides(), *OURS[name], f"hydra.run.dir={folder}/run"]
            return [
                sys.executable,
                "train.py",
                *ours,
                "+callbacks.turns._target_=callback.TakesTurns",
            ]
        return [sys.executable, str(CONTENDERS / "loops.py"), name]

    def overrides(self) -> list[str]:
        widths = [f"model.{side}.hidden=[{self.hidden}]" for side in ("encoder", "decoder")]
        return [
            *("model=beta_vae", "model.beta=1", "annealing=linear", "trainer.max_epochs=1000"),
            *(f"trainer={'gpu' if self.device == 'cuda' else 'cpu'}", *self.data),
            *(f"network={self.network}", "likelihood=bernoulli"),
            *(f"model.latent_dim={self.latents}", f"data.batch_size={self.batch_size}"),
            *(widths if self.network == "mlp" else []),
        ]


class Contender:
    """A process that trains when it is told to."""

    def __init__(self, name: str, course: Course, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.log = folder / "output.log"
        hears, tells = os.pipe()
        listens, says = os.pipe()
        settings: dict[str, Any] = {
            "pipes": [hears, says],
            "folder": str(folder),
            "images": str(course.images),
            "network": course.network,
            "hidden": course.hidden,
            "latents": course.latents,
            "batch_size": course.batch_size,
            "device": course.device,
        }
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(course.threads))
        environment = os.environ | threads | {"RACE": json.dumps(settings)}
        path = [str(CONTENDERS)]
        if name != "pythae":
            path += filter(None, [os.environ.get("PYTHONPATH")])
        environment["PYTHONPATH"] = os.pathsep.join(path)
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                course.command(name, folder),
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(hears, says),
            )
        os.close(hears)
        os.close(says)
        self.tells, self.listens = os.fdopen(tells, "w", buffering=1), os.fdopen(listens)

    def hear(self) -> str:
        """Its next line; raises ContenderError if it ended instead."""
        if not (line := self.listens.readline()):
            self.process.wait()
            lines = [line.strip() for line in re.split(r"[\r\n]", self.log.read_text())]
            said = [line for line in lines if line]
            raise ContenderError(said[-1] if said else f"ended with code {self.process.returncode}")
        return line.strip()

    def tell(self, line: str) -> str:
        """Its answer to a line."""
        with suppress(BrokenPipeError):  # hear() says why
            print(line, file=self.tells)
        return self.hear()

    def train(self, steps: int) -> tuple[float, float]:
        """Wall and process seconds of so many steps."""
        wall, process = map(float, self.tell(f"go {steps}").split())
        return wall, process

    def end(self) -> int:
        """Its peak resident memory in bytes."""
        peak = int(self.tell("end"))
        self.process.wait()
        return peak

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.tells.close()
        self.listens.close()


@dataclass
class Times:
    """Of a contender: wall and process seconds of its blocks, and its peak memory in bytes.

    `first` are the seconds to the end of its first step, all compilation and capture included.
    """

    first: float = 0.0
    wall: list[float] = field(default_factory=list)
    process: list[float] = field(default_factory=list)
    memory: int = 0
    failure: str = ""


@dataclass(frozen=True)
class Race:
    """What a race gave: the times of each contender, whose blocks are `steps` long."""

    steps: int
    batch_size: int
    times: dict[str, Times]

    def speed(self, name: str) -> float:
        """Images per second, the median of the rounds."""
        return self.steps * self.batch_size / median(self.times[name].wall)

    def ratios(self, name: str, clock: str = "wall") -> tuple[float, float, float]:
        """Median and quartiles, over the rounds, of its speed as a share of that by hand."""
        ours, theirs = (getattr(self.times[n], clock) for n in (name, REFERENCE))
        found = [theirs / ours for ours, theirs in zip(ours, theirs, strict=True)]
        low, middle, high = quantiles(found, method="inclusive") if len(found) > 1 else found * 3
        return middle, low, high

    def memory(self, name: str) -> float:
        """Peak memory as a multiple of that by hand."""
        return self.times[name].memory / self.times[REFERENCE].memory


def race(
    names: Sequence[str],
    course: Course,
    folder: Path,
    *,
    rounds: int,
    steps: int | None = None,
    seconds: float = inf,
    say: Callable[[str], None] = lambda _: None,
    show: Callable[[Race], None] = lambda _: None,
) -> Race:
    """Has the contenders of these names and the one by hand train in turn; all start at once.

    Args:
        names: Of the contenders.
        course: What they train.
        folder: Where they may write; it is new.
        rounds: How many blocks each takes, at most.
        steps: Of a block; default `STEPS`, or fewer where those would take long.
        seconds: From the first round on, after which no further one begins.
        say: Told what is going on.
        show: Given the race so far after each round.

    Raises:
        ContenderError: If the contender by hand does; what became of others is in their `Times`.
    """
    ordered = list(dict.fromkeys([REFERENCE, *names]))
    times = {name: Times() for name in ordered}
    running: dict[str, Contender] = {}
    try:
        for name in ordered:
            running[name] = Contender(name, course, folder / name)
        for name in ordered:
            say(f"{name} starts")
            if ready := attempt(name, running, times, Contender.hear):
                times[name].first = float(ready.split()[1])
        steps = block(running[REFERENCE], course, steps)
        began = monotonic()
        for i in range(rounds):
            if i and monotonic() - began > seconds:
                break
            say(f"round {i + 1} of {rounds}, blocks of {steps} steps")
            for name in list(running)[:: -1 if i % 2 else 1]:
                if taken := attempt(name, running, times, lambda c: c.train(steps)):
                    times[name].wall.append(taken[0])
                    times[name].process.append(taken[1])
            show(Race(steps, course.batch_size, times))
        for name in list(running):
            times[name].memory = attempt(name, running, times, Contender.end) or 0
    finally:
        for contender in running.values():
            contender.stop()
    return Race(steps, course.batch_size, times)


def pooled(races: Iterable[Race]) -> Race:
    """Several races of the same contenders as one; a failure in one of them counts."""
    first, *others = races
    for other in others:
        for name, times in first.times.items():
            more = other.times[name]
            times.wall += more.wall
            times.process += more.process
            times.memory = max(times.memory, more.memory)
            times.failure = times.failure or more.failure
    return first


def attempt(
    name: str,
    running: dict[str, Contender],
    times: dict[str, Times],
    action: Callable[[Contender], Any],
) -> Any:
    """What the action gives, or None if the contender failed, which then runs no longer."""
    try:
        return action(running[name])
    except ContenderError as error:
        if name == REFERENCE:
            raise
        times[name].failure = str(error)
        running.pop(name).stop()


def block(reference: Contender, course: Course, steps: int | None) -> int:
    """How many steps a block has, in none of which an epoch may end."""
    if steps is None:
        trial = 5
        seconds, _ = reference.train(trial)
        steps = max(1, min(STEPS[course.device], int(BLOCK_SECONDS * trial / seconds)))
    longest = course.count // course.batch_size - 1  # after the first step of an epoch
    if longest < 1:
        raise ContenderError(f"an epoch has no two batches of {course.batch_size} images")
    return min(steps, longest)


def prepare(network: str, folder: Path, random: int | None = None) -> Course:
    """Writes the images of a network into a folder; a course of them, otherwise by default.

    Args:
        network: mlp, conv or resnet.
        folder: Where the file goes.
        random: So many images of noise in place of a data set.
    """
    name, count = DATA_SETS[network]
    file = folder / f"{name}.npz"
    asked = {"name": name, "random": random}
    maker = [sys.executable, str(CONTENDERS / "images.py"), str(file), json.dumps(asked)]
    subprocess.run(maker, cwd=ROOT, check=True)
    data = [f"data={name.lower()}"]
    if random is not None:
        held_out = random // 10
        count = random - 2 * held_out
        data = ["data=arrays", f"data.source.path={file}"]
        data += [f"data.val_size={held_out}", f"data.test_size={held_out}"]
    return Course(network, file, count, tuple(data), latents=LATENTS[network])


def machine(device: str) -> str:
    """In words: processor or GPU, cores, versions."""
    model = processor_name() or "unknown processor"
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    gpu = subprocess.check_output(query, text=True).splitlines()[0] if device == "cuda" else ""
    python = ".".join(map(str, sys.version_info[:3]))
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "lightning"))
    return f"{gpu and gpu + ', '}{model}, {os.cpu_count()} cores; Python {python}, {packages}"
