"""The text of --help, faster than Hydra's own and with a command's own groups only.

Does not import torch.
"""

import inspect
import json
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vaelab.commands.arguments import choices_in
from vaelab.commands.config_folders import compose_config
from vaelab.commands.setting_comments import setting_meanings

WIDEST = 38  # letters of a setting and its value that have what it means beside them
LEAST = 60  # letters of a line, in however narrow a terminal
MOST = 120
FLAGS = {
    "--cfg job": "print the settings as YAML, and do nothing",
    "--config-dir DIR": "a folder of your own configurations, beside conf",
    "-sc install=bash": "print what completes settings and values by TAB, for eval; or zsh, fish",
}
SWEEP = {"-m": "a sweep: all combinations of values that are given with commas between them"}


def usage(
    command: Callable[..., Any], folders: Sequence[Path], name: str, overrides: Sequence[str]
) -> str:
    """Returns the text of --help: its module's docstring, choices, settings with their values.

    Args:
        command: The function; its module's docstring is the purpose.
        folders: The folders of configurations, the user's own first.
        name: The command's configuration file, without `.yaml`.
        overrides: The overrides of the command line, without sweeps; their values are shown.
    """
    cfg = compose_config(folders, name, overrides)
    choices, groups = cfg.hydra.runtime.choices, dict(default_groups(folders, name))
    words = setting_meanings(folders, name, choices)
    sweeps = "hydra/launcher" in groups
    shown = {
        f"{path}={value}": words.get(path, "")
        for path, value in setting_items(cfg, words, sweeps)
        if path not in groups
    }
    if sweeps:
        shown = {"from=FOLDER": "all settings of an earlier run, but for those that follow"} | shown
    parts = [inspect.getdoc(inspect.getmodule(command)) or ""]
    if groups:
        chosen = {
            f"{group}={choices.get(group) or 'null'}": f"or {', '.join(others)}"
            for group, every in groups.items()
            if (others := [choice for choice in every if choice != choices.get(group)])
        }
        parts += ["Choices, by group=name:", two_columns(chosen)]
    parts += [
        "Settings, by name=value:",
        two_columns(shown),
        "Flags:",
        two_columns((SWEEP if sweeps else {}) | FLAGS),
    ]
    return "\n\n".join(parts)


def setting_items(
    cfg: DictConfig, words: Mapping[str, str], sweeps: bool
) -> Iterator[tuple[str, str]]:
    """Yields (dotted name, shown value) of settings; skips references and most of the `hydra` part.

    Settings outside any part come first. Also skips values that Hydra fills in (`${hydra:...}`)
    if they have no comment. A reference is a value that is only the name of another setting.

    Args:
        cfg: The configuration, with its `hydra` part.
        words: The comments on settings, by dotted names.
        sweeps: Whether the command has sweeps, and run folders.
    """
    every: Any = OmegaConf.to_container(cfg, resolve=False)
    hydra = every.pop("hydra")
    if sweeps:
        kept = {part: {"dir": hydra[part]["dir"]} for part in ("run", "sweep")}
        every["hydra"] = kept | {part: hydra[part] for part in ("launcher", "sweeper")}
    top = {key: value for key, value in every.items() if not isinstance(value, dict)}
    for path, value in leaves(top | every, words):
        text = str(value)
        another = bool(re.fullmatch(r"\$\{[\w.]+\}", text))
        if not another and ("${hydra:" not in text or path in words):
            yield path, value_text(resolve_environment(cfg, path, value))


def leaves(node: Any, whole: Collection[str], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted name, value) of each leaf in nested dictionaries; skips keys with `_` first.

    Args:
        node: The dictionary, or a leaf.
        whole: Dotted names of dictionaries that count as one leaf.
        path: The dotted name of the node.
    """
    if isinstance(node, dict) and (node or not path) and path not in whole:
        for key, value in node.items():
            if not str(key).startswith("_"):
                yield from leaves(value, whole, f"{path}.{key}".lstrip("."))
    else:
        yield path, node


def resolve_environment(cfg: DictConfig, path: str, value: Any) -> Any:
    """Returns a value with its `${oc.env:...}` resolved, or unchanged if that fails."""
    try:
        return OmegaConf.select(cfg, path) if "${oc.env" in str(value) else value
    except OmegaConfBaseException:
        return value


def value_text(value: Any) -> str:
    """Returns a value as --help shows it: JSON without quotes, `...` for `???` and `${hydra:`."""
    if isinstance(value, str):
        return "..." if value == "???" or "${hydra" in value else value or "''"
    return json.dumps(value, separators=(",", ":")).replace('"', "")


def two_columns(rows: Mapping[str, str] | Iterable[tuple[str, str]]) -> str:
    """Formats names and meanings, at least one, as two columns of 60 to 120 letters together.

    The terminal decides how many. A name too long for its column has a line for itself.
    """
    width = min(MOST, max(LEAST, shutil.get_terminal_size((100, 24)).columns))
    pairs = dict(rows)
    left = min(WIDEST, max(map(len, pairs)))
    lines = []
    for name, meaning in pairs.items():
        first, *more = wrap(meaning, width - left - 4) or [""]
        if len(name) > left:
            lines.append(f"  {name}")
            name = ""
        lines.append(f"  {name:{left}}  {first}".rstrip())
        lines += [" " * (left + 4) + line for line in more]
    return "\n".join(lines)


def default_groups(folders: Sequence[Path], name: str) -> Iterator[tuple[str, list[str]]]:
    """Yields each group in the defaults list with its choices; skips groups with fewer than two.

    Reads the defaults list of the last folder's file, and the choices in all folders.
    """
    content: Any = OmegaConf.load(folders[-1] / f"{name}.yaml")
    for entry in content.get("defaults", []):
        if not isinstance(entry, str):
            (group,) = entry
            group = str(group).removeprefix("override ")
            choices = {choice for folder in folders for choice in choices_in(folder / group)}
            if len(choices) > 1:
                yield group, sorted(choices)
