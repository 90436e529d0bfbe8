"""What any command writes into a run folder and shows on the screen."""

import json
import logging
import os
import shlex
import subprocess
import warnings
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

COMPOSED = Path(".hydra", "config.yaml")
"""The configuration of a run, in its folder."""
EVALUATION, PROGRESS = "evaluation.json", "progress.json"
RENAMED = {"bits_per_dim": "nll_bits_per_dim"}
"""Numbers of an evaluation that had the names of others once."""


def read_json(path: Path) -> dict[str, Any]:
    """What a file holds; empty where there is none."""
    return json.loads(path.read_text()) if path.exists() else {}


def read_evaluation(folder: Path) -> dict[str, Any]:
    """`evaluation.json` of a run folder, empty where there is none."""
    return renamed(read_json(folder / EVALUATION))


def renamed(evaluation: dict[str, Any]) -> dict[str, Any]:
    """An evaluation with the names that its numbers have today."""
    return {RENAMED.get(name, name): entry for name, entry in evaluation.items()}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a file whole or not at all; null for what is infinite or not a number."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(finite(content), indent=2, allow_nan=False) + "\n")
    os.replace(partial, path)


def finite(content: Any) -> Any:
    """The same content with None for numbers that JSON does not have."""
    if isinstance(content, Mapping):
        return {name: finite(value) for name, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [finite(value) for value in content]
    return None if isinstance(content, float) and not isfinite(content) else content


def here(path: Path) -> Path:
    """A path as the user would type it."""
    path = path.absolute()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def pasted(path: Path) -> str:
    """A path as the user can paste it into a shell."""
    return shlex.quote(str(here(path)))


def quieten() -> None:
    """Leaves warnings, one line each, and takes Lightning's talk from the screen."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
        logging.getLogger(name).handlers.clear()
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", message=".*is not empty.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*`dataloader_iter`.*")  # see stepping.py
    warnings.filterwarnings("ignore", message=".*`srun` command is available.*")  # see process.py

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        text = Text.assemble(("warning: ", "yellow"), str(message).strip())
        Console(stderr=True, soft_wrap=True).print(text)

    warnings.showwarning = show


def table(title: str, rows: Iterable[Sequence[str]], *columns: str) -> Table:
    """Metrics for the screen: their names, and columns of figures."""
    grid = Table("metric", title=title, title_justify="left")
    for column in columns:
        grid.add_column(column, justify="right")
    for row in rows:
        grid.add_row(*row)
    return grid


def flat(node: Any, path: str = "") -> dict[str, Any]:
    """A nested configuration as dotted names and plain values."""
    if not isinstance(node, dict):
        return {path: node if isinstance(node, (int, float, str, bool)) else str(node)}
    parts = [flat(value, f"{path}.{key}" if path else str(key)) for key, value in node.items()]
    return {key: value for part in parts for key, value in part.items()}


def git_commit() -> str | None:
    """The commit of the code, marked where it has been changed since."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=40"]
    try:
        found = subprocess.run([*command, "--dirty"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
