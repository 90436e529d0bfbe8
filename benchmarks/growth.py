"""How cost grows: python benchmarks/growth.py [part ...] [--to results].

Each part measures costs at some sizes of one thing, fits a slope to their logarithms, and says
which slope it may have: 0 for what must not grow, 1 for what may grow in proportion.

- `images`: of the data set; a training's start, first epoch and memory
- `latents`: a step of training, and the log evidence of the test images
- `width`: of an MLP's two hidden layers on each side; a step of training
- `jobs`: of a sweep, whose jobs do nothing; the launcher's own costs
- `runs`: in a report, each with a setting of its own
- `seeds`: runs in a report of 20 settings, in a folder without `sweep.json`
- `epochs`: TensorBoard's files of a run

Seconds are of the processor, with one thread. A figure is the median of three measurements, or of
fewer where they take long.
"""

import argparse
import io
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import monotonic, process_time
from typing import Any

import numpy as np
from race import machine
from rich.console import Console
from tables import markdown
from tiny import Workplace

ROOT = Path(__file__).parents[1]
TOLERANCE = 0.2
"""How much larger a slope may be than the part says."""
LONG = 25.0
"""Seconds after which a measurement is not repeated."""
BATCH = 128
"""Images of a step."""
HEADING = "## Figures"
"""What is above it in `growth.md` is not written by this script, and kept."""

Costs = dict[str, float]
"""The costs at one size, by name with unit."""

LAUNCHER = """
import os
import sys

if "hydra.mode=RUN" in sys.argv:  # a job
    settings = dict(word.partition("=")[::2] for word in sys.argv)
    folder = settings["hydra.run.dir"].strip("'")
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/results.json", "w") as file:
        file.write(f'{{"val/elbo": -{settings["seed"]}.5}}')
    sys.exit()

import atexit
import json
import resource

from vaelab.commands import cli


def note():
    used = resource.getrusage(resource.RUSAGE_SELF)
    with open("used.json", "w") as file:
        json.dump([used.ru_utime + used.ru_stime, used.ru_maxrss / 1024], file)


@cli.task("train")
def main(cfg):
    pass


atexit.register(note)
main()
"""
"""A `train.py` whose jobs write their results and do nothing else; its launcher notes its costs."""


METER = """
import json
import resource
import subprocess
import sys

code = subprocess.call(sys.argv[2:])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
with open(sys.argv[1], "w") as file:
    json.dump([used.ru_utime + used.ru_stime, used.ru_maxrss / 1024], file)
sys.exit(code)
"""
"""Runs a program and notes its costs. A child begins with the peak memory of its parent, so that
this one must be small."""


@dataclass(frozen=True)
class Part:
    """One thing that grows.

    Attributes:
        grows: What grows, for axes and tables.
        sizes: The sizes that are measured.
        few: Those for `--quick`.
        slopes: The largest slope that is right, by cost.
        measure: Returns the costs at a size; it may write into the folder.
    """

    grows: str
    sizes: Sequence[int]
    few: Sequence[int]
    slopes: Costs
    measure: Callable[[Path, int], Costs]


@dataclass(frozen=True)
class Growth:
    """The costs of a part at its sizes."""

    part: Part
    costs: dict[int, Costs]

    def values(self, name: str) -> list[float]:
        """Returns a cost at each size."""
        return [costs[name] for costs in self.costs.values()]

    def slope(self, name: str, last: int = 0) -> float:
        """Returns the fitted slope of a cost's logarithm, of all or of the `last` sizes."""
        sizes, values = list(self.costs)[-last:], self.values(name)[-last:]
        return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])

    def added_slope(self, name: str) -> float | None:
        """Returns the last slope of what sizes add to the least cost; None if nothing.

        What is always there, such as imports, would hide a part that grows with the square.
        """
        values = self.values(name)
        first, before, last = min(values), values[-2], values[-1]
        *_, smaller, larger = self.costs
        if min(before, last) <= first:
            return None
        return math.log((last - first) / (before - first)) / math.log(larger / smaller)

    def is_right(self, name: str) -> bool:
        """True if the last slope, of what is added if it may grow, is at most what it may be."""
        most = self.part.slopes[name]
        added = self.added_slope(name) if most else None
        return (self.slope(name, last=2) if added is None else added) <= most + TOLERANCE


def run(command: Sequence[str], folder: Path = ROOT, **environment: str) -> tuple[float, float]:
    """Runs a program with one thread; returns processor seconds and peak MB; raises if it fails.

    Those of the processes that it has started, and waited for, are included.
    """
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    with TemporaryDirectory() as name:
        used, output = Path(name, "used"), Path(name, "output")
        with output.open("w") as file:
            code = subprocess.call(
                [sys.executable, "-c", METER, str(used), sys.executable, *command],
                cwd=folder,
                env=os.environ | threads | environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        if code:
            raise RuntimeError(f"{command} ended with {code}:\n{output.read_text()[-2000:]}")
        seconds, megabytes = json.loads(used.read_text())
    return seconds, megabytes


def noise(folder: Path, images: int) -> list[str]:
    """Writes images of noise, unless they are there, and returns the overrides of these data."""
    file = folder / f"images_{images}.npz"
    if not file.exists():
        x = np.random.default_rng(0).integers(0, 256, (images + 400, 1, 28, 28), dtype=np.uint8)
        np.savez(file, train_images=x)
    sizes = ["data.val_size=200", "data.test_size=200"]
    return ["data=arrays", f"data.source.path={file}", *sizes]


def train(folder: Path, ends: bool, *overrides: str) -> dict[str, Any]:
    """Trains in a process of its own and returns what `clock.Clock` has noted of it."""
    file = folder / "clock.json"
    clock = ["_target_=clock.Clock", f"file={file}", f"ends={str(ends).lower()}"]
    given = [*overrides, *(f"+callbacks.clock.{word}" for word in clock)]
    path = os.pathsep.join(filter(None, [str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH")]))
    usual = ["train.py", "network=mlp", "trainer=cpu", "logger=none", "rerun=true"]
    usual += [f"hydra.run.dir={folder}/run"]
    run([*usual, *given], PYTHONPATH=path, VAELAB_DATA=str(folder))
    noted: dict[str, Any] = json.loads(file.read_text())
    return noted


def small_layers(*widths: int) -> list[str]:
    """Returns the overrides of hidden layers of these widths, in encoder and decoder."""
    texts = ",".join(map(str, widths))
    return [f"model.{side}.hidden=[{texts}]" for side in ("encoder", "decoder")]


def of_images(folder: Path, images: int) -> Costs:
    """Returns what the first epoch of so many images costs; the data are prepared before."""
    given = [*noise(folder, images), *small_layers(8), "trainer.max_epochs=1"]
    if not (folder / f"prepared_{images}").exists():
        train(folder, True, *given)
        (folder / f"prepared_{images}").touch()
    noted = train(folder, True, *given)
    return {
        "start, s": noted["start"],
        "first epoch, us per image": noted["epochs"][0] / images * 1e6,
        "memory, MB": noted["megabytes"],
    }


def of_latents(folder: Path, latents: int) -> Costs:
    """Returns what a step with so many latents costs, and 64 importance samples of an image."""
    import torch

    import vaelab

    images = 5_120
    given = [*noise(folder, images), f"model.latent_dim={latents}"]
    given += [f"data.batch_size={BATCH}", "trainer.max_epochs=4"]
    noted = train(folder, False, *given)
    torch.set_num_threads(1)
    trained = vaelab.Run(folder / "run")
    began = process_time()
    with redirect_stdout(io.StringIO()):
        trained.evaluate("likelihood", num_samples=64, rerun=True, device="cpu")
    return {
        "step, ms": median(noted["epochs"][1:]) / (images / BATCH) * 1e3,
        "log evidence, ms per image": (process_time() - began) / 200 * 1e3,
    }


def of_width(folder: Path, width: int) -> Costs:
    """Returns what a step with hidden layers of this width costs."""
    images = 5_120
    given = [*noise(folder, images), *small_layers(width, width)]
    given += [f"data.batch_size={BATCH}", "trainer.max_epochs=4"]
    noted = train(folder, True, *given)
    return {"step, ms": median(noted["epochs"][1:]) / (images / BATCH) * 1e3}


def of_jobs(folder: Path, jobs: int) -> Costs:
    """Returns what a sweep of so many jobs that do nothing costs its launcher."""
    (folder / "train.py").write_text(LAUNCHER)
    with TemporaryDirectory(dir=folder) as sweep:
        run(["train.py", "-m", f"seed=range({jobs})", f"hydra.sweep.dir={sweep}"], folder)
    seconds, megabytes = json.loads((folder / "used.json").read_text())
    return {"launcher, s": seconds, "launcher, MB": megabytes}


def of_runs(folder: Path, runs: int) -> Costs:
    """Returns what the report of a search with so many runs costs."""
    return report(folder, f"search_{runs}", [search_settings(i) for i in range(runs)], True)


def of_seeds(folder: Path, runs: int) -> Costs:
    """Returns what the report of 20 settings with so many runs costs, found without an index."""
    settings = [search_settings(i % 20) | {"seed": i // 20} for i in range(runs)]
    return report(folder, f"seeds_{runs}", settings, False)


def search_settings(number: int) -> dict[str, Any]:
    """Returns the settings of a run of a search, which no other number has."""
    return {"model.beta": round(0.1 * 1.001**number, 6), "model.latent_dim": 2 + number % 20}


def report(folder: Path, name: str, settings: Sequence[dict[str, Any]], has_index: bool) -> Costs:
    """Returns what the report of runs with these settings costs; makes their folders."""
    sweep = folder / name
    if not sweep.exists():
        copy_run(trained_run(folder, 100), sweep, settings)
    if not has_index:
        (sweep / "sweep.json").unlink(missing_ok=True)
    seconds, megabytes = run(["report.py", f"sweep={sweep}", f"to={folder}/report"])
    page = (folder / "report" / "report.html").stat().st_size / 1e6
    return {"report, s": seconds, "report, MB": megabytes, "page, MB": page}


def trained_run(folder: Path, epochs: int) -> Path:
    """Trains a tiny model for so many epochs, unless that is done, and returns its run folder."""
    place, name = Workplace(folder / "place"), f"epochs_{epochs}"
    place.environment["OMP_NUM_THREADS"] = "1"
    if not (place.folder / name / "results.json").exists():
        given = [f"trainer.max_epochs={epochs}", "data.batch_size=16", "trainer=cpu"]
        given += ["model=beta_vae", "evaluate=[latents]", f"hydra.run.dir={name}"]
        if place.run(f"{name}.out", *given):
            raise RuntimeError(place.printed(f"{name}.out"))
    return place.folder / name


def copy_run(run: Path, sweep: Path, settings: Sequence[dict[str, Any]]) -> None:
    """Makes a folder of runs like one that is finished, with other settings and results.

    Curves and pictures are hard links to its own, so that thousands of runs fit on the disk.
    """
    results = json.loads((run / "results.json").read_text())
    config = (run / ".hydra" / "config.yaml").read_text()
    jobs, elbo = [], results["val/elbo"]
    for i, changed in enumerate(settings):
        name = f"run-{i}"
        (sweep / name / ".hydra").mkdir(parents=True)
        (sweep / name / "figures").mkdir()
        for path in [*run.glob("events.*"), run / "evaluation.json", *run.glob("figures/*.png")]:
            os.link(path, sweep / name / path.relative_to(run))
        text = config
        for setting, value in changed.items():
            part, _, last = setting.rpartition(".")
            (results["config"][part] if part else results["config"])[last] = value
            indent = "  " if part else ""
            lines = text.splitlines(keepends=True)
            at = [k for k, line in enumerate(lines) if line.startswith(f"{indent}{last}: ")]
            lines[at[0]] = f"{indent}{last}: {value}\n"
            text = "".join(lines)
        results["seed"] = results["config"]["seed"]
        results["val/elbo"] = elbo - math.sin(i) - i / len(settings)
        (sweep / name / "results.json").write_text(json.dumps(results, indent=2))
        (sweep / name / ".hydra" / "config.yaml").write_text(text)
        overrides = {setting: str(value) for setting, value in changed.items()}
        jobs.append({"folder": name, "overrides": overrides})
    (sweep / "sweep.json").write_text(json.dumps({"command": "python train.py -m", "jobs": jobs}))


def of_epochs(folder: Path, epochs: int) -> Costs:
    """Returns the sizes of TensorBoard's files after so many epochs of four steps each."""
    from vaelab.report.curves import read_small_records

    files = list(trained_run(folder, epochs).glob("events.*"))
    small = sum(len(record) + 16 for file in files for record in read_small_records(file))
    every = sum(file.stat().st_size for file in files)
    return {"scalars, kB": small / 1e3, "pictures, kB": (every - small) / 1e3}


OF_A_REPORT = {"report, s": 1, "report, MB": 1, "page, MB": 1}
"""Costs of a report, in proportion to its runs at most."""
PARTS = {
    "images": Part(
        "images of the data set",
        (2_000, 20_000, 200_000),
        (600, 1_200),
        {"start, s": 1, "first epoch, us per image": 0, "memory, MB": 1},
        of_images,
    ),
    "latents": Part(
        "latents",
        (2, 8, 32, 128, 512, 2048),
        (2, 8),
        {"step, ms": 1, "log evidence, ms per image": 1},
        of_latents,
    ),
    "width": Part(
        "width of the layers", (64, 128, 256, 512, 1024, 2048), (16, 32), {"step, ms": 2}, of_width
    ),
    "jobs": Part(
        "jobs of a sweep",
        (1, 10, 50, 200),
        (1, 3),
        {"launcher, s": 1, "launcher, MB": 0},
        of_jobs,
    ),
    "runs": Part(
        "runs in a report",
        (10, 100, 500, 2_000),
        (4, 8),
        OF_A_REPORT,
        of_runs,
    ),
    "seeds": Part(
        "runs of 20 settings in a report",
        (40, 100, 500, 2_000),
        (20, 40),
        OF_A_REPORT,
        of_seeds,
    ),
    "epochs": Part(
        "epochs of a training",
        (1, 8, 64, 512),
        (1, 2),
        {"scalars, kB": 1, "pictures, kB": 0.5},
        of_epochs,
    ),
}


def measure(
    part: Part, sizes: Sequence[int], rounds: int, say: Callable[[str], None]
) -> dict[int, Costs]:
    """Returns the costs of a part at its sizes, measured in a folder of its own, now deleted."""
    costs = {}
    with TemporaryDirectory() as name:
        for size in sizes:
            found: list[Costs] = []
            while len(found) < rounds:
                say(f"{size:,} {part.grows}, {len(found) + 1} of {rounds}")
                began = monotonic()
                found.append(part.measure(Path(name), size))
                if monotonic() - began > LONG:
                    break
            costs[size] = {key: median(each[key] for each in found) for key in part.slopes}
    return costs


def figures_text(found: Sequence[Growth]) -> str:
    """Returns the tables of all parts, as Markdown: costs, slopes, and what these may be."""
    texts = []
    for growth in found:
        heads = [growth.part.grows, *(f"{size:,}" for size in growth.costs)]
        heads += ["slope", "at the end", "of what is added", "at most", ""]
        rows = []
        for name, most in growth.part.slopes.items():
            fitted = (
                growth.slope(name),
                growth.slope(name, last=2),
                growth.added_slope(name),
                most,
            )
            slopes = ["" if slope is None else f"{slope:.2f}" for slope in fitted]
            verdict = "right" if growth.is_right(name) else "TOO STEEP"
            rows.append(
                [
                    name,
                    *(f"{v:,.3g}" if v < 1000 else f"{v:,.0f}" for v in growth.values(name)),
                    *slopes,
                    verdict,
                ]
            )
        texts.append(markdown(heads, rows))
    return "\n\n".join(texts) + "\n"


def draw(found: Sequence[Growth], path: Path) -> None:
    """Draws costs and fitted lines on logarithmic axes, a panel for each part, as PNG."""
    from matplotlib.figure import Figure

    columns = min(len(found), 3)
    rows = math.ceil(len(found) / columns)
    figure = Figure(figsize=(4.2 * columns, 3.4 * rows), layout="constrained", dpi=80)
    for i, growth in enumerate(found):
        axes = figure.add_subplot(rows, columns, i + 1)
        sizes = np.array(list(growth.costs), float)
        for name in growth.part.slopes:
            slope, level = np.polyfit(np.log(sizes), np.log(growth.values(name)), 1)
            (line,) = axes.loglog(sizes, growth.values(name), "o", markersize=4)
            label = f"{name}: slope {slope:.2f}"
            axes.loglog(sizes, np.exp(level) * sizes**slope, color=line.get_color(), label=label)
        axes.set_xlabel(growth.part.grows)
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path)


def write_results(folder: Path, found: dict[str, dict[int, Costs]]) -> None:
    """Writes `growth.json`, `.md` and `.png`; figures of parts that were not measured are kept."""
    kept, page = folder / "growth.json", folder / "growth.md"
    before = json.loads(kept.read_text()) if kept.exists() else {}
    known = before | {name: {str(n): c for n, c in costs.items()} for name, costs in found.items()}
    kept.write_text(json.dumps(known, indent=1) + "\n")
    growths = [
        Growth(part, {int(size): costs for size, costs in known[name].items()})
        for name, part in PARTS.items()
        if name in known
    ]
    above = page.read_text().partition(HEADING)[0] if page.exists() else "# How cost grows\n\n"
    picture = "![Costs on logarithmic axes, with fitted slopes](growth.png)"
    where = f"{machine('cpu')}; {date.today()}."
    page.write_text(f"{above}{HEADING}\n\n{where}\n\n{figures_text(growths)}\n{picture}\n")
    draw(growths, folder / "growth.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="part", help=", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each figure")
    parser.add_argument("--quick", action="store_true", help="two small sizes of each, once")
    parser.add_argument("--to", type=Path, help="folder for growth.json, .md and .png")
    options = parser.parse_args()
    if unknown := set(options.parts) - PARTS.keys():
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    found: dict[str, dict[int, Costs]] = {}
    with Console(stderr=True).status("") as status:
        for name in options.parts or PARTS:
            part = PARTS[name]
            sizes = part.few if options.quick else part.sizes
            rounds = 1 if options.quick else options.rounds
            found[name] = measure(part, sizes, rounds, status.update)
            print(figures_text([Growth(part, found[name])]), flush=True)
            if options.to:
                write_results(options.to, found)


if __name__ == "__main__":
    main()
