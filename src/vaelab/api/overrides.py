"""Keywords of Python as overrides of the command line: `latent_dim=8` is `model.latent_dim=8`."""

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vaelab.commands import train
from vaelab.commands.config_folders import CONF
from vaelab.commands.help_text import default_groups
from vaelab.errors import UserError
from vaelab.runs import naming

ALIASES = {"epochs": "trainer.max_epochs", "batch_size": "data.batch_size"}
"""Keywords that have a shorter name than their setting."""


def keyword_overrides(settings: Mapping[str, Any]) -> Iterator[str]:
    """Yields the overrides that keywords stand for.

    A keyword is a group with the name of its choice (`network="conv"`), a setting outside of any
    group (`seed=1`), one of `ALIASES`, or else a setting of the model (`latent_dim=8`). A
    dictionary holds settings one level down (`trainer={"precision": "bf16"}`).

    Raises:
        UserError: If a value cannot be written on a command line.
    """
    groups = {name for name, _ in default_groups([CONF], "train")}
    own = inspect.signature(train.settings_schema).parameters.keys()
    for name, value in settings.items():
        if name in ALIASES:
            yield f"{ALIASES[name]}={override_value(name, value)}"
        elif name in groups and not isinstance(value, Mapping):
            yield f"{name}={override_value(name, value)}"
        else:
            path = name if name in own or name in groups else f"model.{name}"
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
