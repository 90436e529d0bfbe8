"""The configuration of the command line composed in Python, and models and data built of it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from lightning import Trainer
from omegaconf import DictConfig, open_dict, read_write

from vaelab.api.overrides import ALIASES, all_overrides, explain_keywords
from vaelab.commands import arguments, preflight, train
from vaelab.commands.config_folders import CONF, compose_config
from vaelab.commands.error_messages import user_message
from vaelab.data import Images
from vaelab.elbo import ELBO
from vaelab.errors import UserError
from vaelab.runs import loading, validation


class Experiment(NamedTuple):
    """Model, data and trainer of a command line, for `trainer.fit(model, data)`."""

    model: ELBO
    data: Images
    trainer: Trainer


@contextmanager
def composed(
    overrides: Sequence[str], command: str = "train", keywords: Iterable[str] = ()
) -> Iterator[tuple[DictConfig, Any]]:
    """Context manager that gives a command's configuration and its part `hydra`.

    Within it `${hydra:...}` in the configuration is resolved by that part; errors of settings are
    UserErrors, as on the command line.

    Args:
        overrides: As on the command line.
        command: The name of the command, and of its file in conf/.
        keywords: Names of the keywords among the overrides, for errors in the words of Python.
    """
    config = HydraConfig.instance()
    before = config.cfg
    try:
        words = [arguments.quote_argument(word, []) for word in overrides]
        arguments.check_overrides(words, False, [CONF])
        cfg = compose_config([CONF], command, words)
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
        explained = explain_keywords(message, keywords)
        if is_told and explained == message:
            raise
        raise UserError(explained) from None
    finally:
        config.cfg = before


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
            `data="vectors"` (D,) of a vector.
        classes: The number or the names of the classes of the label; or numbers of classes by
            column. A model that is not conditional needs none.
        numbers: Widths of the columns of numbers, by name.
        overrides: Further settings as on the command line.
        settings: Groups by name (`network="conv"`) and settings of the model (`latent_dim=8`).

    Raises:
        UserError: If a setting is unknown, out of range, or does not fit the others.
    """
    names: dict[str, list[str]] = {}
    if isinstance(classes, int):
        classes = {"label": classes} if classes else {}
    elif not isinstance(classes, Mapping):
        names = {"label": [str(name) for name in classes]}
        classes = {"label": len(names["label"])}
    for name in ALIASES.keys() & settings.keys():
        raise UserError(f"{name}: is a setting of training, and a model alone has none")
    words = all_overrides(model, settings, overrides)
    check_shape(x_shape, has_numbers=bool({"data=vectors", "data=signals"} & {*words}))
    with composed(words, keywords=settings) as (cfg, _):
        shapes = {
            "x_shape": tuple(x_shape),
            "classes": dict(classes),
            "numbers": dict(numbers or {}),
            "class_names": names,
            "pixels": cfg.data.pixels,
        }
        described = loading.resolve_node(Path(), cfg, "model") | shapes
        try:
            return loading.build_part(ELBO, Path("vaelab.build"), "model", described, trust=True)
        except UserError as error:
            raise UserError(str(error).removeprefix("vaelab.build: ")) from None


def check_shape(x_shape: Any, has_numbers: bool) -> None:
    """Raises UserError unless it is the shape of an image, channels first, or of numbers."""
    is_shape = isinstance(x_shape, Sequence) and not isinstance(x_shape, str)
    if not is_shape or (len(x_shape) < 3 and not has_numbers):
        raise UserError(
            f"x_shape={x_shape}: an image is (C, H, W), such as (1, 28, 28); "
            'signals and vectors go with data="signals" and data="vectors"'
        )
    shape = tuple(x_shape)
    if len(shape) == 3 and shape[2] in (1, 3, 4) and shape[0] == shape[1]:
        first = (shape[2], *shape[:2])
        raise UserError(f"x_shape={shape}: the channels come first, as in {first}")
