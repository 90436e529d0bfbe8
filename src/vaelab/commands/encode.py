"""Write latents and scores of images, a row for each: python encode.py run=... images=photos."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

from omegaconf import DictConfig

from vaelab.commands import cli

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from pydantic import NonNegativeInt

    from vaelab.data import Images
    from vaelab.elbo import ELBO
    from vaelab.evaluation.encoding import Encoded
    from vaelab.runs.shared_data import SharedData

PARTS = ("train", "val", "test")


def settings_schema(
    *,
    run: list[str] | str,
    images: str,
    array: str | None,
    label: int | str | None,
    range: tuple[float, float] | None,  # noqa: A002
    resize: bool,
    broken: Literal["refuse", "skip"],
    num_samples: NonNegativeInt,
    score: Literal["auto", "nll", "elbo", "distortion", "rate"],
    reference: NonNegativeInt | Literal["all"],
    seed: NonNegativeInt,
    device: str,
    trust: bool,
    paths: dict[str, str],
    to: str | None,
) -> None:
    """Declares the settings of `encode` and their types, for validation; is never called."""


@cli.task("encode", settings_schema, lists=["run"], ends_on_signals=True)
def main(cfg: DictConfig) -> None:
    """Writes a file of encoded images for each run, prints what it has, then raises what failed.

    Turns off argument validation of torch.distributions for the whole process.
    """
    # Imported here, so that --help and --cfg answer without these slow imports.
    from pathlib import Path

    import torch

    from vaelab.commands.many_runs import Failures
    from vaelab.commands.quiet import quieten
    from vaelab.errors import UserError
    from vaelab.evaluation.encoded_files import check_encoded_path, write_encoded
    from vaelab.runs import finished, loading
    from vaelab.runs.folder import check_links
    from vaelab.runs.screen import printable, shell_path
    from vaelab.runs.shared_data import SharedData

    quieten()
    torch.distributions.Distribution.set_default_validate_args(False)
    folders = finished.find_runs(cli.as_list(cfg.run))
    to = Path(cfg.to or "encoded.npz")
    if len(folders) > 1 and to.name != str(to):
        raise UserError(f"to={to}: of several runs each has its file in its folder; give {to.name}")
    device, shared = finished.select_device(cfg.device), SharedData()
    failures = Failures("encode", len(folders))
    for folder in folders:
        path = to if cfg.to and len(folders) == 1 else loading.output_folder(folder) / to
        with failures.of(folder):
            check_encoded_path(path)
            check_links(path, folder)
            if how_far := finished.unfinished_progress(folder):
                print(printable(f"{folder}: not finished, {how_far}"))
            found, settings, noun = encode_run(folder, device, cfg, shared)
            write_encoded(path, found, settings)
            print(f"{shell_path(path)}  {description(found, settings['score'], noun)}")
    failures.raise_kept()


def encode_run(
    folder: Path, device: torch.device, cfg: DictConfig, shared: SharedData
) -> tuple[Encoded, dict[str, Any], str]:
    """Returns a run's encoded images with their scores, the settings, and what images are called.

    Prints which arrays there are not. Raises UserError if run and settings do not fit.
    """
    from pathlib import Path

    from vaelab.data.description import change_warning
    from vaelab.evaluation import encoding
    from vaelab.observations import kind_text
    from vaelab.pictures.gallery import load_model_and_data
    from vaelab.runs.screen import printable
    from vaelab.training.progress_bar import track

    model, data = load_model_and_data(folder, device, cfg.trust, Path(cfg.paths.data), shared)
    is_used = cfg.images in PARTS or cfg.reference
    if data is not None and is_used and (changed := change_warning(data, model.data_then)):
        print(printable(f"{folder}: {changed}"))
    drawn: dict[str, Any] = {"num_samples": cfg.num_samples, "seed": cfg.seed, "track": track}
    found = encode_asked(folder, model, data, cfg, drawn)
    score = encoding.choose_score(found, cfg.score)
    found["score"] = encoding.anomaly_scores(found, score)
    if missing := encoding.missing_arrays(found):
        print(printable(f"{folder}: {missing}"))
    if data is None:
        print(printable(f"{folder}: quantile left out: an export has no validation images"))
    elif cfg.reference:
        count = None if cfg.reference == "all" else cfg.reference
        reference = encoding.encode_reference(model, data, count, **drawn)
        found["quantile"] = encoding.quantiles(
            found["score"], encoding.anomaly_scores(reference, score)
        )
    kept = ("images", "label", "num_samples", "reference", "seed")
    settings = {"run": str(folder), "step": model.step, **{name: cfg[name] for name in kept}}
    return found, settings | {"score": score}, kind_text(model.x_shape)


def encode_asked(
    folder: Path, model: ELBO, data: Images | None, cfg: DictConfig, drawn: dict[str, Any]
) -> Encoded:
    """Returns the encoded images of `images=`: a part of the run's data, or the user's own.

    Args:
        folder: The run folder, or an exported one.
        model: The run's model, on its device.
        data: The run's data; None of an exported model.
        cfg: The settings.
        drawn: `num_samples`, `seed` and `track` of `vaelab.evaluation.encoding`.

    Raises:
        UserError: If there are no such images, or they do not fit the model.
    """
    from dataclasses import replace
    from pathlib import Path

    import numpy as np

    from vaelab.data.image_settings import ImageSettings
    from vaelab.data.tables import TABLES
    from vaelab.errors import UserError
    from vaelab.evaluation import encoding
    from vaelab.evaluation.given_images import (
        arrange_given,
        read_given_arrays,
        read_given_numbers,
    )
    from vaelab.observations import x_text
    from vaelab.pictures.gallery import label_index
    from vaelab.pictures.image_folders import is_image_file, read_image_folder
    from vaelab.runs.file_reading import image_settings, label_column
    from vaelab.runs.screen import printable

    if cfg.label is not None and not model.context_dim:
        raise UserError(f"label={cfg.label}: this model is told no labels")
    label = None if cfg.label is None else label_index(model, cfg.label)
    if cfg.images in PARTS:
        if data is None:
            raise UserError(f"images={cfg.images}: an exported model is without its images")
        return encoding.encode_part(model, data, cfg.images, label=label, **drawn)
    where = Path(cfg.images)
    if not os.path.exists(where):  # of a path that is too long, pathlib's raises
        raise UserError(
            f"images={where}: there is no such file or folder; it may also be {', '.join(PARTS)}"
        )
    span = cfg.range
    if model.units is not None:
        is_table = where.suffix in TABLES
        if where.is_dir() or (is_table and len(model.x_shape) > 1):
            what = "a table" if is_table else "a folder"
            raise UserError(f"images={where}: is {what}; this model takes {x_text(model.x_shape)}")
        column = label_column(folder, data)
        conditions = [*model.classes, *model.numbers] if model.context_dim else []
        given = read_given_numbers(where, model.units, cfg.array, column, conditions)
    elif where.is_dir() or is_image_file(where):
        made, skip = image_settings(folder, data) or ImageSettings(), cfg.broken == "skip"
        made = made if span is None else replace(made, span=(span[0], span[1]))
        classes = model.class_names.get("label", ())
        try:
            made.check_range()
            given = read_image_folder(where, model.x_shape, cfg.resize, made, skip, classes)
        except UserError as error:
            raise UserError(str(error).replace("data.source.range", "range")) from error
        span = (0, 255)
    else:
        given = read_given_arrays(where, cfg.array)
    columns = dict(given.columns)
    if label is not None:
        columns[next(iter(model.classes))] = np.full(len(given.images), model.label_names[label])
    try:
        said = [*given.remarks]
        if model.units is None:
            said += arrange_given(given.images, model.x_shape)[1]
        if said:
            print(printable(f"{where}: {'; '.join(said)}"))
        found = encoding.encode_images(model, given.images, columns, span=span, **drawn)
    except UserError as error:
        told = str(error).replace("span=[", "range=[")
        raise UserError(f"images={where}: {told}") from error
    if given.files:
        found = {"index": found.pop("index"), "file": np.array(given.files), **found}
    return found


def description(found: Encoded, score: str, noun: str) -> str:
    """Returns a line on what was written: how many images, which arrays and which score."""
    names = [f"{name} ({v.shape[1]})" if v.ndim > 1 else name for name, v in found.items()]
    count = len(found["index"])
    noun = noun if count > 1 else noun.removesuffix("s")
    return f"{count:,} {noun}: {', '.join(names)}; score is {score}"
