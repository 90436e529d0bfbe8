"""What tells runs apart: the settings that were swept, and their values as typed columns."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from vaelab.runs.folder import COMPOSED, flat
from vaelab.runs.naming import is_free

FOLDERS = ("save_dir", "dirpath", "default_root_dir", "folder")
FIRST = ("beta", "latent_dim")
"""Settings that come first on every axis, by the last part of their names; `seed` comes last."""


def differing(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """The settings of each run that are not the same in all of these run folders.

    Left out are folders, what does not make a run another one, and texts that only follow another
    setting of their group, as the file of a data set follows its name.
    """
    configs = [settings(folder / COMPOSED) for folder in folders]
    names = list(dict.fromkeys(name for config in configs for name in config))
    columns = {name: [config.get(name) for config in configs] for name in names}
    kept: dict[str, list[Any]] = {}
    for name, values in columns.items():
        others = [kept[other] for other in kept if group(other) == group(name)]
        follows = is_text(values) and any(same_parts(values, other) for other in others)
        if len(set(values)) > 1 and not follows:
            kept[name] = values
    return [
        {name: values[i] for name, values in kept.items() if values[i] is not None}
        for i in range(len(folders))
    ]


def settings(path: Path) -> dict[str, Any]:
    """The settings of a run by dotted names; a part's `_target_` under the name of the part."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found = {}
    for name, value in flat(yaml.load(path.read_text(), loader) or {}).items():
        parent, _, last = name.rpartition(".")
        if last == "_target_":
            found[parent] = value.rpartition(".")[2]
        elif not (last.startswith("_") or last in FOLDERS or is_free(name)):
            found[name] = value
    # What a run is of comes before its details
    return dict(sorted(found.items(), key=lambda item: item[0].count(".")))


def group(name: str) -> str:
    return name.partition(".")[0]


def is_text(values: Sequence[Any]) -> bool:
    return all(isinstance(plain(value), str) for value in values if value is not None)


def same_parts(a: Sequence[Any], b: Sequence[Any]) -> bool:
    """Whether two settings put the runs into the same parts."""
    return len(set(a)) == len(set(b)) == len(set(zip(a, b, strict=True)))


def typed(values: Sequence[Any]) -> pd.Series:
    """A column of whole numbers, numbers, booleans or, where they are mixed, texts.

    Args:
        values: As the command line or a configuration has them; None where there is none.
    """
    parsed = [None if value is None else plain(value) for value in values]
    kinds = {type(value) for value in parsed if value is not None}
    if kinds == {bool}:
        return pd.Series(parsed, dtype="boolean")
    if kinds == {int}:
        return pd.Series(parsed, dtype="Int64")
    if kinds and kinds <= {int, float}:
        numbers = [math.nan if value is None else float(value) for value in parsed]
        return pd.Series(numbers, dtype="float64")
    return pd.Series([None if value is None else str(value) for value in values], dtype="str")


def plain(value: Any) -> Any:
    """A text as the number or boolean that it spells."""
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


def in_order(names: Sequence[str]) -> list[str]:
    """Settings in the order of the axes of plots and the columns of tables."""

    def place(name: str) -> int:
        last = name.rpartition(".")[2]
        if last in FIRST:
            return FIRST.index(last)
        return len(FIRST) + (name == "seed")

    return sorted(names, key=place)


def short(names: Sequence[str]) -> dict[str, str]:
    """Settings by the last part of their names, where that says which is meant."""
    last = [name.rpartition(".")[2] for name in names]
    return {
        name: end if last.count(end) == 1 else name for name, end in zip(names, last, strict=True)
    }


def levels(column: pd.Series) -> list[Any]:
    """The values of a setting: numbers by size, texts in the order in which they were given.

    None is the last one where some jobs do not have the setting.
    """
    values = list(column.dropna().unique())
    rest = [None] if len(values) and column.isna().any() else []
    return (sorted(values) if is_numeric(column) else values) + rest


def is_numeric(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def shown(value: Any) -> str:
    """A value of a setting, in few characters."""
    if pd.isna(value):
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def labels(values: Sequence[Any]) -> list[str]:
    """The same for the values of one setting, in as many more as tell them apart."""
    brief = [shown(value) for value in values]
    return brief if len(set(brief)) == len(set(map(str, values))) else list(map(str, values))


def described(row: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Settings in words, without those that there are none of: `beta 4, latent_dim 8`."""
    known = {name: row[key] for key, name in names.items() if not pd.isna(row[key])}
    return ", ".join(f"{name} {shown(value)}" for name, value in known.items())
