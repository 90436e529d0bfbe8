"""What is kept of a reproduced run: its numbers, curve and pictures, small enough for git."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from vaelab.errors import UserError
from vaelab.files.atomic import atomic_file, make_folder, write_text
from vaelab.report.curves import read_curves
from vaelab.runs.folder import read_evaluation
from vaelab.training.json_files import read_json, write_json

Form = Literal["full", "short"]
"""The whole protocol, or its short form."""
FORMS: tuple[Form, ...] = ("full", "short")
KEPT = (
    *("seconds", "epochs", "steps", "device", "train/images_per_second", "stopped"),
    *("processor", "threads", "versions", "git_commit"),
)
"""What `results.json` has beside metrics and is kept; the settings are in the command."""
PICTURES = ("samples", "reconstructions")
CURVES = ("val/elbo", "val/rate", "val/distortion")
POINTS = 200  # most points of a kept curve


def record_folder(kept: Path, protocol: str, run: str, form: Form) -> Path:
    """Returns the folder of the record of a run."""
    return kept / protocol / (run if form == "full" else f"{run}_short")


@dataclass(frozen=True)
class Origin:
    """How a run was made.

    Attributes:
        command: The command line that makes it again.
        settings: Those of `train`, but for the seed.
        further: Those of them that were given on the command line, beside the protocol's.
    """

    command: str
    settings: Sequence[str]
    further: Sequence[str] = ()


def keep_run(
    kept: Path, protocol: str, run: str, form: Form, origin: Origin, folders: Mapping[int, Path]
) -> Path:
    """Writes the record of a run from its finished run folders, by seed; returns its folder.

    `record.json` has its origin, and metrics, times and versions of each seed; curves and pictures
    are those of the first seed. An older record is replaced.

    Raises:
        UserError: If a run has no results.
    """
    to = record_folder(kept, protocol, run, form)
    make_folder(to)
    content: dict[str, Any] = asdict(origin) | {"seeds": {}}
    for seed, folder in folders.items():
        results = read_json(folder / "results.json")
        if "seconds" not in results:
            raise UserError(f"{folder}: this run left no results.json, as with trainer=fast")
        measured = read_evaluation(folder)
        metrics = {k: {"value": v} for k, v in results.items() if is_metric(k, v)}
        metrics |= {k: v for k, v in measured.items() if isinstance(v, dict) and "value" in v}
        about = {name: results[name] for name in KEPT if name in results}
        content["seeds"][str(seed)] = {"metrics": metrics, **about}
    first = next(iter(folders.values()))
    for name in PICTURES:
        if (picture := first / "figures" / f"{name}.png").exists():
            with atomic_file(to / picture.name) as file:
                file.write(picture.read_bytes())
    write_curves(to / "curves.csv", first)
    write_json(to / "record.json", content)
    return to


def is_metric(name: str, value: Any) -> bool:
    """Returns whether an entry of `results.json` is a metric of validation or test."""
    return name.startswith(("val/", "test/")) and isinstance(value, (int, float))


def write_curves(path: Path, run: Path) -> None:
    """Writes curves of validation as a CSV, a row for each of up to 200 steps, if there are any."""
    curves = read_curves(run)
    names = [name for name in CURVES if name in curves]
    if not names:
        return
    steps: Sequence[int] = [int(step) for step in curves[names[0]].index]
    every = -(-len(steps) // POINTS)
    shown = sorted({*steps[::-1][::every]})
    lines = [",".join(["step", *names])]
    for step in shown:
        row = [f"{curves[name].get(step, math.nan):.4f}" for name in names]
        lines.append(",".join([str(step), *row]))
    write_text(path, "\n".join(lines) + "\n")


def read_record(kept: Path, protocol: str, run: str, form: Form) -> dict[str, Any]:
    """Returns the record of a run, empty if there is none."""
    return read_json(record_folder(kept, protocol, run, form) / "record.json")


def has_records(kept: Path) -> bool:
    """Returns whether a folder holds records of reproduced runs."""
    return next(kept.glob("*/*/record.json"), None) is not None
