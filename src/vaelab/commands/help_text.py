"""What --help says: Hydra's own is slow, and shows groups that a command has not; no torch."""

import inspect
import json
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vaelab.commands.arguments import choices_in
from vaelab.commands.setting_comments import meanings
from vaelab.runs import naming

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
    """What the command is for, its groups and what to choose from, and its settings.

    Args:
        command: The function; the docstring of its file says what it is for.
        folders: Those of configurations, the user's own first.
        name: Of the command's.
        overrides: Of the command line; the settings are shown as these change them.
    """
    cfg = composed(folders, name, overrides)
    choices, groups = cfg.hydra.runtime.choices, dict(offered(folders, name))
    words = meanings(folders, name, choices)
    sweeps = "hydra/launcher" in groups
    shown = {
        f"{path}={value}": words.get(path, "")
        for path, value in settings(cfg, words, sweeps)
        if path not in groups
    }
    parts = [inspect.getdoc(inspect.getmodule(command)) or ""]
    if groups:
        chosen = {
            f"{group}={choices.get(group) or 'null'}": f"or {', '.join(others)}"
            for group, every in groups.items()
            if (others := [choice for choice in every if choice != choices.get(group)])
        }
        parts += ["Choices, by group=name:", columns(chosen)]
    parts += [
        "Settings, by name=value:",
        columns(shown),
        "Flags:",
        columns((SWEEP if sweeps else {}) | FLAGS),
    ]
    return "\n\n".join(parts)


def composed(folders: Sequence[Path], name: str, overrides: Sequence[str]) -> DictConfig:
    """The configuration of a command, and Hydra's, for a command line; of a sweep the defaults."""
    own = [f"file://{folder.absolute()}" for folder in folders[:-1]]
    search = [f"hydra.searchpath=[{','.join(map(naming.quote, own))}]"] if own else []
    with initialize_config_dir(str(folders[-1]), version_base="1.3"):
        return compose(name, [*search, *overrides], return_hydra_config=True)


def settings(cfg: DictConfig, words: Mapping[str, str], sweeps: bool) -> Iterator[tuple[str, str]]:
    """The dotted name of each setting, and its value as it may be typed; those of no part first.

    Args:
        cfg: The configuration, with that of Hydra.
        words: What settings mean, by their dotted names.
        sweeps: Whether the command has sweeps, and a folder of its own.
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
            yield path, written(resolved(cfg, path, value))


def leaves(node: Any, whole: Collection[str], path: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted names and values of all that can be set in a part of a configuration.

    Args:
        node: The part.
        whole: Names of what is one setting, even if it has parts.
        path: The name of the part.
    """
    if isinstance(node, dict) and (node or not path) and path not in whole:
        for key, value in node.items():
            if not str(key).startswith("_"):
                yield from leaves(value, whole, f"{path}.{key}".lstrip("."))
    else:
        yield path, node


def resolved(cfg: DictConfig, path: str, value: Any) -> Any:
    """A value with what it takes from the environment, if that is known by now."""
    try:
        return OmegaConf.select(cfg, path) if "${oc.env" in str(value) else value
    except OmegaConfBaseException:
        return value


def written(value: Any) -> str:
    """A value as the command line takes it; dots for one that is missing, or not known by now."""
    if isinstance(value, str):
        return "..." if value == "???" or "${hydra" in value else value or "''"
    return json.dumps(value, separators=(",", ":")).replace('"', "")


def columns(rows: Mapping[str, str] | Iterable[tuple[str, str]]) -> str:
    """Names, and beside each what it means, in lines that fit the terminal."""
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


def offered(folders: Sequence[Path], name: str) -> Iterator[tuple[str, list[str]]]:
    """The groups in a configuration's defaults, and the files in each."""
    content: Any = OmegaConf.load(folders[-1] / f"{name}.yaml")
    for entry in content.get("defaults", []):
        if not isinstance(entry, str):
            (group,) = entry
            group = str(group).removeprefix("override ")
            choices = {choice for folder in folders for choice in choices_in(folder / group)}
            if len(choices) > 1:
                yield group, sorted(choices)
