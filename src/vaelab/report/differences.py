"""The settings that differ between runs, and their values as typed columns and as text."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from vaelab.runs.folder import COMPOSED, flatten
from vaelab.runs.naming import is_free
from vaelab.runs.targets import update_config

FOLDERS = ("save_dir", "dirpath", "default_root_dir", "folder")
FIRST = ("beta", "latent_dim")
"""Settings that come first in every order, by the last part of their names; `seed` is last."""


def differing_settings(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Reads runs' configurations; returns per run the differing settings, without derived texts.

    Left out are, too, folders, settings that do not change what a run computes, and missing values.
    A derived text only follows another setting of its group, as the file of a data set follows its
    name.
    """
    configs = [read_settings(folder / COMPOSED) for folder in folders]
    names = list(dict.fromkeys(name for config in configs for name in config))
    columns = {name: [config.get(name) for config in configs] for name in names}
    kept: dict[str, list[Any]] = {}
    for name, values in columns.items():
        others = [kept[other] for other in kept if top_name(other) == top_name(name)]
        follows = is_text(values) and any(is_same_partition(values, other) for other in others)
        if len(set(values)) > 1 and not follows:
            kept[name] = values
    return [
        {name: values[i] for name, values in kept.items() if values[i] is not None}
        for i in range(len(folders))
    ]


def read_settings(path: Path) -> dict[str, Any]:
    """Reads a run's settings by dotted name, but only those that change what the run computes.

    What an earlier vaelab wrote is as of today. Folders are left out, too. The class name of a
    `_target_` is stored under the part's name. Names with fewer dots come first. A damaged file has
    no settings.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), loader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    found = {}
    content = update_config(content) if isinstance(content, dict) else {}
    for name, value in flatten(content).items():
        parent, _, last = name.rpartition(".")
        if last == "_target_":
            found[parent] = str(value).rpartition(".")[2]
        elif not (last.startswith("_") or last in FOLDERS or is_free(name)):
            found[name] = value
    # A part's class comes before the part's settings
    return dict(sorted(found.items(), key=lambda item: item[0].count(".")))


def top_name(name: str) -> str:
    """Returns the first part of a dotted name."""
    return name.partition(".")[0]


def is_text(values: Sequence[Any]) -> bool:
    """True if no value, None aside, is or spells a number or a boolean."""
    return all(isinstance(parsed_value(value), str) for value in values if value is not None)


def is_same_partition(a: Sequence[Any], b: Sequence[Any]) -> bool:
    """True if two settings divide the runs into the same groups."""
    return len(set(a)) == len(set(b)) == len(set(zip(a, b, strict=True)))


def typed_column(values: Sequence[Any]) -> pd.Series:
    """Returns parsed values as a column of booleans, integers or floats if all are; else texts.

    Args:
        values: As the command line or a configuration has them; None for a missing value.
    """
    parsed = [None if value is None else parsed_value(value) for value in values]
    kinds = {type(value) for value in parsed if value is not None}
    if kinds == {bool}:
        return pd.Series(parsed, dtype="boolean")
    if kinds == {int}:
        return pd.Series(parsed, dtype="Int64")
    if kinds and kinds <= {int, float}:
        numbers = [math.nan if value is None else float(value) for value in parsed]
        return pd.Series(numbers, dtype="float64")
    return pd.Series([None if value is None else str(value) for value in values], dtype="str")


def parsed_value(value: Any) -> Any:
    """Returns a text as the boolean or number that it spells; any other value unchanged."""
    if not isinstance(value, str):
        return value
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def sorted_settings(names: Sequence[str]) -> list[str]:
    """Returns names in the order of axes and columns: FIRST, others as given, `seed` last."""

    def place(name: str) -> int:
        """Returns the sort key of a setting."""
        last = name.rpartition(".")[2]
        if last in FIRST:
            return FIRST.index(last)
        return len(FIRST) + (name == "seed")

    return sorted(names, key=place)


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Returns the last part of each name by name; the whole name if two share that part."""
    last = [name.rpartition(".")[2] for name in names]
    return {
        name: end if last.count(end) == 1 else name for name, end in zip(names, last, strict=True)
    }


def levels(column: pd.Series) -> list[Any]:
    """Returns distinct values: numbers sorted, others as they appear; None last if any is missing.

    Empty if all are missing.
    """
    values = list(column.dropna().unique())
    rest = [None] if len(values) and column.isna().any() else []
    return (sorted(values) if is_numeric(column) else values) + rest


def is_numeric(column: pd.Series) -> bool:
    """True if a column holds numbers and not booleans."""
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def value_text(value: Any) -> str:
    """Returns a value as text: floats with four significant digits, `none` if missing."""
    if pd.isna(value):
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def level_labels(values: Sequence[Any]) -> list[str]:
    """Returns short texts of a setting's values, or full texts if short ones would be equal."""
    brief = [value_text(value) for value in values]
    return brief if len(set(brief)) == len(set(map(str, values))) else list(map(str, values))


def settings_text(row: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Returns text as `beta 4, latent_dim 8` of the settings in `names`; skips missing values."""
    known = {name: row[key] for key, name in names.items() if not pd.isna(row[key])}
    return ", ".join(f"{name} {value_text(value)}" for name, value in known.items())
