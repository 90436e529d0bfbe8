"""What lies where in a run folder."""

import subprocess
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vaelab.runs.targets import rename_targets
from vaelab.training.json_files import read_json

COMPOSED = Path(".hydra", "config.yaml")
"""The configuration of a run, in its folder."""
EVALUATION, PROGRESS = "evaluation.json", "progress.json"
RENAMED = {"bits_per_dim": "nll_bits_per_dim"}
"""Numbers of an evaluation that had the names of others once."""


def read_config(folder: Path) -> DictConfig:
    """The composed configuration of a run, with today's names of what it was made of.

    Raises:
        FileNotFoundError: If there is none.
    """
    plain = OmegaConf.to_container(OmegaConf.load(folder / COMPOSED), resolve=False)
    return OmegaConf.create(rename_targets(plain))


def read_evaluation(folder: Path) -> dict[str, Any]:
    """`evaluation.json` of a run folder, empty where there is none."""
    return renamed(read_json(folder / EVALUATION))


def renamed(evaluation: dict[str, Any]) -> dict[str, Any]:
    """An evaluation with the names that its numbers have today."""
    return {RENAMED.get(name, name): entry for name, entry in evaluation.items()}


def flat(node: Any, path: str = "") -> dict[str, Any]:
    """A nested configuration as dotted names and plain values."""
    if not isinstance(node, dict):
        return {path: node if isinstance(node, (int, float, str, bool)) else str(node)}
    parts = [flat(value, f"{path}.{key}" if path else str(key)) for key, value in node.items()]
    return {key: value for part in parts for key, value in part.items()}


def git_commit() -> str | None:
    """The commit of the code, marked where it has been changed since."""
    here = Path(__file__)
    options: Any = {"cwd": here.parent, "capture_output": True, "text": True, "timeout": 10}
    try:
        tracked = subprocess.run(["git", "ls-files", "--error-unmatch", here.name], **options)
        if tracked.returncode:  # installed, perhaps inside a repository of the user's
            return None
        described = ["git", "describe", "--always", "--abbrev=40", "--dirty"]
        return subprocess.run(described, **options).stdout.strip() or None
    except (OSError, subprocess.TimeoutExpired):
        return None
