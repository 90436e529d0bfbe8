"""What --help says: Hydra's own is slow, and shows groups that a command has not."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf


def usage(command: Callable[..., Any], folder: Path, name: str, arguments: Sequence[str]) -> str:
    """What the command is for, its groups and what to choose from, and its settings.

    Args:
        command: The function; the docstring of its file says what it is for.
        folder: That of the configurations.
        name: Of the command's.
        arguments: Of the command line; the settings are shown as these change them.
    """
    changes = [argument for argument in arguments if "=" in argument]
    with initialize_config_dir(str(folder), version_base="1.3"):
        settings = OmegaConf.to_yaml(compose(name, changes))
    purpose = inspect.getdoc(inspect.getmodule(command)) or ""
    groups = "".join(f"  {group}={' '.join(choices)}\n" for group, choices in offered(folder, name))
    chosen = f"Choices:\n\n{groups}\n" if groups else ""
    return f"{purpose}\n\n{chosen}Settings, each to be changed by name=value:\n\n{settings}"


def offered(folder: Path, name: str) -> Iterator[tuple[str, list[str]]]:
    """The groups in a configuration's defaults, and the files in each."""
    content: Any = OmegaConf.load(folder / f"{name}.yaml")
    for entry in content.get("defaults", []):
        if not isinstance(entry, str):
            (group,) = entry
            group = str(group).removeprefix("override ")
            files = (path.stem for path in (folder / group).glob("*.yaml"))
            choices = sorted(file for file in files if not file.startswith("_"))
            if len(choices) > 1:
                yield group, choices
