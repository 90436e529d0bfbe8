"""What is kept of a reproduced run: its numbers, curve and pictures, small enough for git."""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vaelab.errors import DamagedFileError, UserError
from vaelab.files.atomic import atomic_file, explain_write_errors, make_folder
from vaelab.report.curves import read_curves
from vaelab.reproductions.protocol import Words, further_settings
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
KEPT_FOLDER = Path("results/reproductions")
"""Where `vaelab reproduce` keeps records, by default."""
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
    are those of the first seed. An older record is replaced: its curves and pictures are deleted
    before and the new ones are written after `record.json`, so that none stand beside another's.

    Raises:
        UserError: If a run has no results.
    """
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
    pictures = [first / "figures" / f"{name}.png" for name in PICTURES]
    files = {path.name: path.read_bytes() for path in pictures if path.exists()}
    if curves := curves_text(first):
        files["curves.csv"] = curves.encode()
    to = record_folder(kept, protocol, run, form)
    make_folder(to)
    for name in (*(path.name for path in pictures), "curves.csv"):
        with explain_write_errors(to / name):
            (to / name).unlink(missing_ok=True)
    write_json(to / "record.json", content)
    for name, data in files.items():
        with atomic_file(to / name) as file:
            file.write(data)
    return to


def check_replaceable(kept: Path, protocol: str, run: str, form: Form, further: Words) -> None:
    """Raises UserError if a run with further settings would replace a record without them."""
    given = further_settings(further)
    record = read_record_or_nothing(kept, protocol, run, form)
    if given and record and not further_settings(record.get("further", ())):
        told = " ".join(f"{name}={value}" for name, value in given.items())
        folder = record_folder(kept, protocol, run, form)
        raise UserError(
            f"{folder}: is the record of the protocol's own settings, which one with {told} does "
            "not replace; kept=FOLDER keeps that elsewhere"
        )


def is_metric(name: str, value: Any) -> bool:
    """Returns whether an entry of `results.json` is a metric of validation or test."""
    return name.startswith(("val/", "test/")) and isinstance(value, (int, float))


def curves_text(run: Path) -> str:
    """Returns curves of validation as CSV, a row for each of up to 200 steps; empty if none."""
    curves = read_curves(run)
    names = [name for name in CURVES if name in curves]
    if not names:
        return ""
    steps: Sequence[int] = [int(step) for step in curves[names[0]].index]
    every = -(-len(steps) // POINTS)
    shown = sorted({*steps[::-1][::every]})
    lines = [",".join(["step", *names])]
    for step in shown:
        row = [f"{curves[name].get(step, math.nan):.4f}" for name in names]
        lines.append(",".join([str(step), *row]))
    return "\n".join(lines) + "\n"


class Part(BaseModel):
    """A part of a record: a pydantic model that takes no text for a number."""

    model_config = ConfigDict(strict=True)


class Metric(Part):
    """What a record has of a metric."""

    value: float | list[float | None] | None
    se: float | list[float | None] | None = None


class Repetition(Part):
    """What a record has to have of a seed."""

    metrics: dict[str, Metric]
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Record(Part):
    """What a record has to have; records of earlier versions have no settings."""

    command: str
    settings: list[str] = []
    further: list[Annotated[str, Field(pattern=".=")]] = []
    seeds: Annotated[dict[str, Repetition], Field(min_length=1)]


def read_record(kept: Path, protocol: str, run: str, form: Form) -> dict[str, Any]:
    """Returns the record of a run, empty if there is none.

    Raises:
        DamagedFileError: If it is not whole; the message has the command that writes it anew.
    """
    path = record_folder(kept, protocol, run, form) / "record.json"
    flags = ["--short"] if form == "short" else []
    where = [] if kept == KEPT_FOLDER else [f"kept={kept}"]
    anew = shlex.join(["vaelab", "reproduce", f"{protocol}/{run}", *flags, *where])
    try:
        if found := read_json(path):
            Record.model_validate(found)
        elif path.exists():
            raise DamagedFileError(f"{path}: it is empty")
    except (DamagedFileError, ValidationError, RecursionError) as error:
        raise DamagedFileError(f"{path}: damaged, and left out; `{anew}` writes it anew") from error
    return found


def read_record_or_nothing(kept: Path, protocol: str, run: str, form: Form) -> dict[str, Any]:
    """Returns the record of a run, empty if there is none or it is damaged."""
    try:
        return read_record(kept, protocol, run, form)
    except DamagedFileError:
        return {}


def has_records(kept: Path, protocols: Path) -> bool:
    """Returns whether a folder holds records of reproduced runs, in a folder of their protocol."""
    found = kept.glob("*/*/record.json")
    return any((protocols / f"{path.parents[1].name}.yaml").exists() for path in found)
