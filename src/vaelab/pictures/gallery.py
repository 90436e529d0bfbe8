"""Writing of the pictures of finished runs and exported models to files."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaelab.data import Images, pixels
from vaelab.data.image_settings import ImageSettings
from vaelab.elbo import ELBO
from vaelab.errors import UserError, spelling_hint
from vaelab.evaluation.samplers import Own
from vaelab.files.atomic import make_folder
from vaelab.observations import x_text
from vaelab.pictures.drawing import KINDS, draw, obstacle
from vaelab.pictures.image_files import join_image_files, read_image, write_image
from vaelab.pictures.image_folders import read_image_as_trained
from vaelab.pictures.request import Request
from vaelab.randomness import seeded_generator
from vaelab.runs import finished, loading, naming
from vaelab.runs.file_reading import image_settings
from vaelab.runs.shared_data import SharedData

MOST = 5000  # most test images to draw from


def write_pictures(
    run: Path,
    to: Path,
    *,
    what: Sequence[str],
    count: int | None,
    label: Sequence[int | str],
    given: Mapping[str, str | float | Sequence[float]],
    sampler: Callable[[ELBO, Images], ELBO],
    temperature: float,
    images: Sequence[str],
    seed: int,
    device: torch.device,
    trust: bool = False,
    data_folder: Path | None = None,
    shared: SharedData | None = None,
) -> Iterator[Path]:
    """Draws pictures of a run or export into `to`, overwriting, and yields the path of each file.

    Fits the sampler first. An exported model has no images, so pictures that need some are
    refused, or omitted by `all`.

    Args:
        run: The run folder, or an exported one.
        to: The folder of the files; created if it is missing.
        what: Names of pictures; `all` is every kind that can be drawn with the other settings.
        count: See `Request`.
        label: Names of classes, see `Request`.
        given: Values of columns of y for samples, by name: the name of a class, or numbers.
        sampler: The prior to sample from, see `vaelab.evaluation.samplers`.
        temperature: See `Request`.
        images: Two image files to interpolate between, or none.
        seed: Seed of all that is drawn.
        device: The device of the model.
        trust: Whether the configuration of the run may name code outside vaelab.
        data_folder: See `vaelab.runs.finished.load_run`.
        shared: See `vaelab.runs.finished.load_run`.

    Raises:
        UserError: If there is no such run, picture, label or image.
    """
    model, data = load_model_and_data(run, device, trust, data_folder, shared)
    x, y = first_test_images(data) if data is not None else exported_model_inputs(model, given)
    labels = tuple(label_index(model, name) for name in label)
    ends = read_ends(images, model, seed, image_settings(run, data))
    training = partial(data.grey_images, "train") if data is not None else None
    places = tuple(given_column(model, name, value) for name, value in given.items())
    request = Request(x, y, model.num_classes, count, labels, places, temperature, ends, training)
    model = apply_sampler(model, data, sampler)
    names = select_kinds(what, model, request)
    if images and "interpolation" not in names:
        reason = obstacle("interpolation", model, request) or "is not asked for"
        raise UserError(f"images={','.join(images)}: what=interpolation {reason}")
    settings: dict[str, Any] = {"count": count, "label": [*label], "given": dict(given)}
    settings |= {"sampler": getattr(sampler, "name", str(sampler)), "temperature": temperature}
    settings |= {"images": [*images], "seed": seed}
    suffix, kept = settings_suffix(settings), {"run": str(run), **settings}
    for name in names:
        picture = draw(name, model, request, seed)
        make_folder(to)
        yield from picture.save(to / f"{name}{suffix}", kept | {"what": name})


def settings_suffix(settings: Mapping[str, Any]) -> str:
    """Returns the settings that are not the default as the end of a file name; omits the count.

    For example `_label-3-8`. The count makes more or less of the same picture.
    """
    usual = {"sampler": Own.name, "temperature": 1.0, "seed": 0}
    words = []
    for name, value in settings.items():
        if name == "count" or value == usual.get(name) or value in ([], {}):
            continue
        parts = [str(part) for part in value] if isinstance(value, list) else [str(value)]
        clear = not any("-" in part for part in parts)
        words.append(f"{name}={'-'.join(parts) if clear else parts}")
    return naming.run_name(words)


def write_comparisons(drawn: Mapping[Path, Sequence[Path]], to: Path) -> Iterator[Path]:
    """Writes PNG files with all runs side by side, for names that all runs have; yields the paths.

    Args:
        drawn: The files of each run folder; only PNG files are read.
        to: The folder to write to; created if it is missing.
    """
    make_folder(to)
    names = [folder.name for folder in drawn]
    pictures = [{f.name: f for f in files if f.suffix == ".png"} for files in drawn.values()]
    for name in pictures[0]:
        if all(name in files for files in pictures):
            page = join_image_files([files[name] for files in pictures], names)
            write_image(to / name, page)
            yield to / name


def load_model_and_data(
    folder: Path,
    device: torch.device,
    trust: bool,
    data_folder: Path | None,
    shared: SharedData | None = None,
) -> tuple[ELBO, Images | None]:
    """Loads a run's model and data, or an exported model without data, onto a device."""
    if loading.is_exported(folder):
        return loading.load_model(folder, trust=trust).to(device), None
    model, data = finished.load_run(folder, trust=trust, data_folder=data_folder, shared=shared)
    data.device = device
    return model.to(device), data


def apply_sampler(
    model: ELBO, data: Images | None, sampler: Callable[[ELBO, Images], ELBO]
) -> ELBO:
    """Returns the model with the sampler's prior, fitted to training data; without data only `Own`.

    Without data it returns the model itself, or raises UserError if the sampler is not `Own`.
    """
    if data is not None:
        return sampler(model, data)
    if not isinstance(sampler, Own):
        raise UserError("sampler: an exported model is without the images that it is fitted to")
    return model


def exported_model_inputs(model: ELBO, given: Collection[str]) -> tuple[Tensor, Tensor]:
    """Returns x [0, C, H, W] without images and y with a row for each class, or raises UserError.

    Classes are those of y's first column; without any, y has one row. If y has several columns or
    numbers, its rows are placeholders for `given` to replace.

    Raises:
        UserError: If y has several columns or numbers and `given` lacks one of them.
    """
    x = torch.empty(0, *model.x_shape, device=model.device)
    columns = model.classes | model.numbers
    missing = [name for name in columns if name not in given]
    if model.context_dim and missing and (len(columns) > 1 or model.numbers):
        raise UserError(
            f"an exported model has no images to take {', '.join(missing)} from; give "
            f"given={{{','.join(f'{name}:...' for name in columns)}}}"
        )
    count = max(1, model.num_classes)
    y = torch.zeros(count, model.y_dim, device=model.device)
    y[:, : model.num_classes] = torch.eye(count, model.num_classes, device=model.device)
    return x, y


def first_test_images(data: Images) -> tuple[Tensor, Tensor]:
    """Returns the first 5,000 test images, at most, and their y, as one batch."""
    batches = data.batches("test")
    batches.batch_size = MOST
    return next(iter(batches))


def label_index(model: ELBO, name: int | str) -> int:
    """Returns the index of a class, by name, in the first column of y; raises UserError if none."""
    if not model.classes:
        raise UserError(f"label={name}: this run has no labels")
    try:
        return model.class_index(name, next(iter(model.classes)))
    except UserError as error:
        raise UserError(f"label={error}") from error


def given_column(
    model: ELBO, name: str, value: str | float | Sequence[float]
) -> tuple[slice, Tensor]:
    """Returns a column's slice of y and the values [W] to put there, or raises UserError.

    Raises:
        UserError: If there is no such column or class, or the numbers are not W numbers.
    """
    widths = model.classes | model.numbers
    if name not in widths:
        hint = spelling_hint(name, widths) if widths else "it has none"
        raise UserError(f"given.{name}: is no column that this model was trained with; {hint}")
    start = sum(list(widths.values())[: list(widths).index(name)])
    place, width = slice(start, start + widths[name]), widths[name]
    if name in model.classes:
        try:
            return place, torch.eye(width)[model.class_index(value, name)]  # type: ignore[arg-type]
        except UserError as error:
            raise UserError(f"given.{name}={error}") from error
    try:
        numbers = torch.tensor(value, dtype=torch.float32).flatten()
    except (TypeError, ValueError) as error:
        raise UserError(f"given.{name}={value}: should be {width} numbers") from error
    if len(numbers) != width:
        raise UserError(f"given.{name}={value}: should be {width} numbers and not {len(numbers)}")
    return place, numbers


def read_ends(
    paths: Sequence[str], model: ELBO, seed: int, settings: ImageSettings | None = None
) -> Tensor | None:
    """Reads two image files as x [2, C, H, W], with pixel noise by the seed; None for no paths.

    Args:
        paths: The files.
        model: Says what x is.
        seed: Seed of the noise.
        settings: How the training read its pictures (default: see `read_image`).

    Raises:
        UserError: If there are not two files, one cannot be read, or x are no images.
    """
    if not paths:
        return None
    if len(paths) != 2:
        raise UserError(f"images={','.join(paths)}: should be two files, and not {len(paths)}")
    if len(model.x_shape) != 3:
        raise UserError(f"images={','.join(paths)}: this model is of {x_text(model.x_shape)}")
    if settings is None:
        read = torch.stack([read_image(Path(path), model.x_shape) for path in paths])
    else:
        files = [read_image_as_trained(Path(path), model.x_shape, settings) for path in paths]
        read = torch.from_numpy(np.stack(files))
    noise = seeded_generator("ends", seed)
    kind: Any = model.pixels
    return pixels.draw(read, kind, noise).to(model.device)


def select_kinds(what: Sequence[str], model: ELBO, request: Request) -> list[str]:
    """Returns the kinds of pictures to draw; raises UserError if a named one cannot be drawn.

    For `all` returns those that can be drawn.
    """
    obstacles = {name: obstacle(name, model, request) for name in KINDS}
    drawable = [name for name, reason in obstacles.items() if reason is None]
    if "all" in what:
        return drawable
    for name in what:
        if name not in KINDS:
            raise UserError(
                f"what={name}: there is no such picture; {spelling_hint(name, [*drawable, 'all'])}"
            )
        if obstacles[name]:
            raise UserError(f"what={name} {obstacles[name]}; possible are {', '.join(drawable)}")
    return list(dict.fromkeys(what))
