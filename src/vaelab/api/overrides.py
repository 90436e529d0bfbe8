"""Keywords of Python as overrides of the command line: `latent_dim=8` is `model.latent_dim=8`."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vaelab.autoencoder import AutoEncoder
from vaelab.commands import train
from vaelab.commands.config_folders import CONF
from vaelab.commands.earlier_settings import TRUST
from vaelab.commands.help_text import default_groups
from vaelab.elbo import ELBO
from vaelab.errors import UserError
from vaelab.runs import naming

ALIASES = {"epochs": "trainer.max_epochs", "batch_size": "data.batch_size"}
"""Keywords that have a shorter name than their setting."""


def all_overrides(
    model: str | None, settings: Mapping[str, Any], overrides: Sequence[str]
) -> list[str]:
    """Returns the overrides of a call: its model, its keywords, and its `overrides` as they are.

    Raises:
        UserError: If `model` or `overrides` are of another type, or a keyword has no text.
    """
    if not isinstance(model, str | None):
        kind = type(model).__name__
        raise UserError(f'model: a {kind} is no name of a variant, such as model="vae"')
    if isinstance(overrides, str):
        raise UserError(f'overrides: one text; give a list, overrides=["{overrides}"]')
    if not isinstance(overrides, Sequence) or not all(isinstance(o, str) for o in overrides):
        raise UserError('overrides: give a list of texts, such as ["trainer.precision=bf16"]')
    chosen = [] if model is None else [f"model={model}"]
    return [*chosen, *keyword_overrides(settings), *overrides]


def keyword_groups() -> dict[str, list[str]]:
    """Returns the choices of each group of `python train.py`, such as `network`, by its name."""
    return dict(default_groups([CONF], "train"))


def part_names() -> set[str]:
    """Returns the names of a model's parts, such as `optimizer`, whose settings are the model's."""
    signatures = [inspect.signature(each.__init__).parameters for each in (AutoEncoder, ELBO)]
    return {name for each in signatures for name in each}


def setting_names() -> list[str]:
    """Returns the names of the settings outside of any group, such as `seed`."""
    return [*inspect.signature(train.settings_schema).parameters]


def keyword_overrides(settings: Mapping[str, Any]) -> Iterator[str]:
    """Yields the overrides that keywords stand for.

    A keyword is a group with the name of its choice (`network="conv"`), a setting outside of any
    group (`seed=1`), one of `ALIASES`, or else a setting of the model (`latent_dim=8`). A
    dictionary holds settings one level down (`trainer={"precision": "bf16"}`), and those of a part
    of the model are the model's (`optimizer={"lr": 0.001}`); of a group its `name` is the choice
    (`scheduler={"name": "cosine", "warmup": 100}`), which is not needed if there is but one.

    Raises:
        UserError: If a value cannot be written on a command line.
    """
    groups, own = keyword_groups(), [*setting_names(), TRUST]
    outside = {*own, *groups} - part_names()
    for name, value in settings.items():
        if name in groups and isinstance(value, Mapping):
            some = [choice for choice in groups[name] if choice != "none"]
            choice = value.get("name", some[0] if len(some) == 1 else None)
            if choice is not None:
                yield f"{name}={override_value(name, choice)}"
    for name, value in settings.items():
        if name in ALIASES:
            yield f"{ALIASES[name]}={override_value(name, value)}"
        elif name in groups and not isinstance(value, Mapping):
            yield f"{name}={override_value(name, value)}"
        else:
            path = name if name in outside else f"model.{name}"
            if name in groups:
                value = {key: inner for key, inner in value.items() if key != "name"}
            yield from dotted_overrides(path, value)


def dotted_overrides(path: str, value: Any) -> Iterator[str]:
    """Yields `path=value`; for a dictionary those of its entries, with dotted names."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from dotted_overrides(f"{path}.{key}", inner)
    else:
        yield f"{path}={override_value(path, value)}"


def override_value(name: str, value: Any) -> str:
    """Returns a value in Hydra's grammar; UserError if it has none, as an object.

    Args:
        name: The setting, for the message.
        value: None, a boolean, number, text or path, or a list of these.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (str, Path)):
        return naming.quote_if_needed(str(value))
    if isinstance(value, (list, tuple)):
        return f"[{','.join(override_value(name, inner) for inner in value)}]"
    kind = type(value).__name__
    raise UserError(f"{name}: a {kind} is no setting, which are texts, numbers and lists of them")
