"""The pictures of a finished run, in files."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaelab.data import Images, pixels
from vaelab.elbo import ELBO
from vaelab.errors import UserError, nearest
from vaelab.pictures.drawing import KINDS, draw, obstacle
from vaelab.pictures.image_files import joined, read_image
from vaelab.pictures.request import Request
from vaelab.randomness import generator
from vaelab.runs import finished, loading, naming
from vaelab.samplers import Own

MOST = 5000  # test images to draw from


def write(
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
) -> Iterator[Path]:
    """Draws pictures of a run and yields their files, each as it is there.

    Of an exported model, which is without its images, there are those that need none.

    Args:
        run: The run folder, or an exported one.
        to: The folder of the files.
        what: Names of pictures; `all` is every one that makes sense with the other settings.
        count: See `Request`.
        label: Names of classes, see `Request`.
        given: The class by its name, or the numbers, of columns of y by name, where samples are
            drawn.
        sampler: What samples are drawn from, see `vaelab.samplers`.
        temperature: See `Request`.
        images: Two files to interpolate between, or none.
        seed: Of all that is drawn.
        device: Where the model runs.

    Raises:
        UserError: If there is no such run, picture, label or image.
    """
    model, data = opened(run, device)
    x, y = test_images(data) if data is not None else no_images(model, given)
    labels = tuple(class_of(model, name) for name in label)
    ends = read_ends(images, model, seed)
    training = partial(data.grey, "train") if data is not None else None
    places = tuple(placed(model, name, value) for name, value in given.items())
    request = Request(x, y, model.num_classes, count, labels, places, temperature, ends, training)
    model = fitted(model, data, sampler)
    names = possible(what, model, request)
    if images and "interpolation" not in names:
        reason = obstacle("interpolation", model, request) or "is not asked for"
        raise UserError(f"images={','.join(images)}: what=interpolation {reason}")
    settings: dict[str, Any] = {"count": count, "label": [*label], "given": dict(given)}
    settings |= {"sampler": getattr(sampler, "name", str(sampler)), "temperature": temperature}
    settings |= {"images": [*images], "seed": seed}
    suffix, kept = told(settings), {"run": str(run), **settings}
    to.mkdir(parents=True, exist_ok=True)
    for name in names:
        picture = draw(name, model, request, seed)
        yield from picture.save(to / f"{name}{suffix}", kept | {"what": name})


def told(settings: Mapping[str, Any]) -> str:
    """The settings that are not the usual ones, as the end of a file's name: `_label-3-8`.

    But for the count, which makes more or less of the same picture.
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


def beside(drawn: Mapping[Path, Sequence[Path]], to: Path) -> Iterator[Path]:
    """Joins the pictures of the same name that all runs have, and yields the files.

    Args:
        drawn: The files of each run folder.
        to: The folder of the joined ones.
    """
    to.mkdir(parents=True, exist_ok=True)
    names = [folder.name for folder in drawn]
    pictures = [{f.name: f for f in files if f.suffix == ".png"} for files in drawn.values()]
    for name in pictures[0]:
        if all(name in files for files in pictures):
            joined([files[name] for files in pictures], names).save(to / name)
            yield to / name


def opened(folder: Path, device: torch.device) -> tuple[ELBO, Images | None]:
    """The model of a run and its data, or an exported model, on a device."""
    if loading.is_exported(folder):
        return loading.load(folder).to(device), None
    model, data = finished.load(folder)
    data.device = device
    return model.to(device), data


def fitted(model: ELBO, data: Images | None, sampler: Callable[[ELBO, Images], ELBO]) -> ELBO:
    """The model with the prior that a sampler fits to the codes of its training images."""
    if data is not None:
        return sampler(model, data)
    if not isinstance(sampler, Own):
        raise UserError("sampler: an exported model is without the images that it is fitted to")
    return model


def no_images(model: ELBO, given: Collection[str]) -> tuple[Tensor, Tensor]:
    """No image, and a y for each class of an only column.

    Raises:
        UserError: If y is more than that, and not given.
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


def test_images(data: Images) -> tuple[Tensor, Tensor]:
    """The first test images and their labels."""
    batches = data.batches("test")
    batches.batch_size = MOST
    return next(iter(batches))


def class_of(model: ELBO, name: int | str) -> int:
    """The class of that name in the first column of y."""
    if not model.classes:
        raise UserError(f"label={name}: the images of this run have no labels")
    try:
        return model.class_index(name, next(iter(model.classes)))
    except UserError as error:
        raise UserError(f"label={error}") from error


def placed(model: ELBO, name: str, value: str | float | Sequence[float]) -> tuple[slice, Tensor]:
    """Where a column is in y, and what it is for a class or numbers [W].

    Raises:
        UserError: If there is no such column, or it holds no such thing.
    """
    widths = model.classes | model.numbers
    if name not in widths:
        hint = nearest(name, widths) if widths else "it has none"
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


def read_ends(paths: Sequence[str], model: ELBO, seed: int) -> Tensor | None:
    """Two image files as the model takes them, [2, C, H, W]."""
    if not paths:
        return None
    if len(paths) != 2:
        raise UserError(f"images={','.join(paths)}: should be two files, and not {len(paths)}")
    read = torch.stack([read_image(Path(path), model.x_shape) for path in paths])
    noise = generator("ends", seed)
    kind: Any = model.pixels
    return pixels.draw(read, kind, noise).to(model.device)


def possible(what: Sequence[str], model: ELBO, request: Request) -> list[str]:
    """The pictures asked for; raises UserError if one of them cannot be drawn."""
    obstacles = {name: obstacle(name, model, request) for name in KINDS}
    drawable = [name for name, reason in obstacles.items() if reason is None]
    if "all" in what:
        return drawable
    for name in what:
        if name not in KINDS:
            raise UserError(
                f"what={name}: there is no such picture; {nearest(name, [*drawable, 'all'])}"
            )
        if obstacles[name]:
            raise UserError(f"what={name} {obstacles[name]}; possible are {', '.join(drawable)}")
    return list(dict.fromkeys(what))
