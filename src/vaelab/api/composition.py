"""The configuration of the command line composed in Python, and models and data built of it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException
from lightning import Trainer
from omegaconf import DictConfig, open_dict, read_write

from vaelab.api.overrides import ALIASES, all_overrides
from vaelab.api.wording import explain_error
from vaelab.commands import arguments, preflight, train
from vaelab.commands.config_folders import CONF, compose_config
from vaelab.commands.earlier_settings import expand_from
from vaelab.commands.error_messages import user_message
from vaelab.data import Images
from vaelab.elbo import ELBO
from vaelab.errors import UserError
from vaelab.inference import is_whole
from vaelab.runs import loading, naming, validation

ARRAYS = "data=arrays"
"""The override that chooses data, and with them likelihood and network, for images as arrays."""
SHAPES = (
    "an image is (C, H, W), such as (1, 28, 28); "
    'signals (C, L) and vectors (D,) go with data="signals" and data="vectors"'
)


class Experiment(NamedTuple):
    """Model, data and trainer of a command line, for `trainer.fit(model, data)`."""

    model: ELBO
    data: Images
    trainer: Trainer


@contextmanager
def composed(
    overrides: Sequence[str], command: str = "train", keywords: Mapping[str, Any] | None = None
) -> Iterator[tuple[DictConfig, Any]]:
    """Context manager that gives a command's configuration and its part `hydra`.

    Within it `${hydra:...}` in the configuration is resolved by that part; errors of settings are
    UserErrors, as on the command line.

    Args:
        overrides: As on the command line.
        command: The name of the command, and of its file in conf/.
        keywords: The keywords of a call from Python, whose errors are in its words, and whose
            dictionaries may have what is not in the configuration; None for a command line.
    """
    config = HydraConfig.instance()
    before = config.cfg
    try:
        words = [arguments.quote_argument(word, []) for word in overrides]
        if command == "train":
            words = expand_from(words, [CONF])
        arguments.check_overrides(words, False, [CONF])
        cfg = compose_added(command, words, keywords is not None)
        config.set_config(cfg)
        with open_dict(cfg), read_write(cfg.hydra.runtime):
            cfg.hydra.runtime.output_dir = str(Path(cfg.hydra.run.dir).absolute())
            config.set_config(cfg)
            hydra_cfg = cfg.pop("hydra")
        yield cfg, hydra_cfg
    except Exception as error:
        is_told = isinstance(error, UserError)
        message = str(error) if is_told else user_message(error, command, list(overrides))
        if message is None:
            raise
        explained = message
        if keywords is not None:
            explained = explain_error(message, keywords, overrides)
        if is_told and explained == message:
            raise
        raise UserError(explained) from None
    finally:
        config.cfg = before


def compose_added(command: str, words: Sequence[str], may_add: bool) -> DictConfig:
    """Composes a configuration; if asked, adds settings that are not in it and a target takes."""
    while True:
        try:
            return compose_config([CONF], command, words)
        except ConfigCompositionException as error:
            message = user_message(error, command, list(words)) or ""
            added = re.search(r"add it with \+(\S+)=", message)
            if not (may_add and added):
                raise
            words = [f"+{w}" if naming.setting_name(w) == added[1] else w for w in words]


def compose(*overrides: str) -> Experiment:
    """Returns model, data and trainer as `python train.py` makes them of these overrides.

    Nothing is trained or written; `trainer.fit(model, data)` does. Loads the data.

    Raises:
        UserError: As the command line would say.
    """
    if not all(isinstance(word, str) for word in overrides):
        raise UserError('compose: give texts, as in vaelab.compose("model=vae", "data=mnist")')
    with composed(overrides) as (cfg, _):
        validation.check_config(cfg, train.settings_schema)
        data = preflight.instantiate_as(Images, "data", cfg.data)
        model = preflight.instantiate_as(ELBO, "model", cfg.model, **data.shapes)
        callbacks = preflight.instantiate_callbacks(cfg.callbacks)
        trainer = preflight.instantiate_as(Trainer, "trainer", cfg.trainer, callbacks=callbacks)
        return Experiment(model, data, trainer)


def build(
    model: str,
    *,
    x_shape: Sequence[int],
    classes: int | Sequence[str] | Mapping[str, int] = 0,
    numbers: Mapping[str, int] | None = None,
    overrides: Sequence[str] = (),
    **settings: Any,
) -> ELBO:
    """Returns an untrained model, for a Trainer or loop of one's own.

    Args:
        model: The name of a variant, such as `beta_vae`; `python train.py --help` lists them.
        x_shape: (C, H, W) of an image; with `data="signals"` (C, L) of a signal, and with
            `data="vectors"` (D,) of a vector. Images of several channels have the likelihood and
            network that `vaelab.fit` gives to arrays.
        classes: The number or the names of the classes of the label; or numbers of classes by
            column. A model that is not conditional needs none.
        numbers: Widths of the columns of numbers, by name.
        overrides: Further settings as on the command line.
        settings: Groups by name (`network="conv"`) and settings of the model (`latent_dim=8`).

    Raises:
        UserError: If a setting is unknown, out of range, or does not fit the others.
    """
    names: dict[str, list[str]] = {}
    if isinstance(classes, np.ndarray):
        classes = classes.tolist()
    check_columns(classes, numbers)
    if isinstance(classes, int):
        classes = {"label": classes} if classes else {}
    elif not isinstance(classes, Mapping):
        names = {"label": [str(name) for name in classes]}
        classes = {"label": len(names["label"])}
    for name in ALIASES.keys() & settings.keys():
        raise UserError(f"{name}: is a setting of training, and a model alone has none")
    words = all_overrides(model, settings, overrides)
    data = next((word for word in words if word.startswith("data=")), None)
    x_shape = plain_shape(x_shape)
    check_shape(x_shape, data)
    if data is None and x_shape[0] > 1:
        words = [ARRAYS, *words]
    with composed(words, keywords=settings) as (cfg, _):
        shapes = {
            "x_shape": x_shape,
            "classes": dict(classes),
            "numbers": dict(numbers or {}),
            "class_names": names,
            "pixels": cfg.data.pixels,
        }
        described = loading.resolve_node(Path(), cfg, "model") | shapes
        try:
            return loading.build_part(ELBO, Path("vaelab.build"), "model", described, trust=True)
        except UserError as error:
            message = str(error).removeprefix("vaelab.build: ")
            given = 'numbers={"angle": 2}' if "numbers" in message else "classes=10"
            lacking = f"and there are none; give {given}"
            raise UserError(message.replace("and the images have none", lacking)) from None


def plain_shape(x_shape: Any) -> tuple[int, ...]:
    """Returns a shape as a tuple of Python's whole numbers; UserError if it has others."""
    sizes = x_shape.tolist() if isinstance(x_shape, np.ndarray) else x_shape
    is_shape = isinstance(sizes, Sequence) and not isinstance(sizes, str)
    if not is_shape or not sizes or not all(is_whole(size, 1) for size in sizes):
        raise UserError(f"x_shape={x_shape}: {SHAPES}")
    return tuple(map(int, sizes))


def check_shape(x_shape: tuple[int, ...], data: str | None) -> None:
    """Raises UserError unless it is the shape of an image, channels first, or of these numbers.

    Args:
        x_shape: The shape.
        data: The override that chooses data, such as `data=vectors`, or None.
    """
    wanted = {"data=vectors": 1, "data=signals": 2}.get(data or "", 3)
    if len(x_shape) != wanted:
        raise UserError(f"x_shape={x_shape}: {SHAPES}")
    if len(x_shape) == 3 and x_shape[2] in (1, 3, 4) and x_shape[0] == x_shape[1]:
        first = (x_shape[2], *x_shape[:2])
        raise UserError(f"x_shape={x_shape}: the channels come first, as in {first}")


def check_columns(classes: Any, numbers: Any) -> None:
    """Raises UserError unless they are classes and widths of numbers as `build` takes them."""
    counts = [*classes.values()] if isinstance(classes, Mapping) else [classes]
    names = isinstance(classes, Sequence) and not isinstance(classes, str)
    if not names and not all(is_whole(count, 0) for count in counts):
        raise UserError(
            f"classes={classes!r}: give their number, their names, or numbers by column"
        )
    widths = numbers.values() if isinstance(numbers, Mapping) else [numbers]
    if numbers is not None and not all(
        isinstance(numbers, Mapping) and is_whole(width, 1) for width in widths
    ):
        raise UserError(f'numbers={numbers!r}: give widths by column, such as {{"angle": 2}}')
