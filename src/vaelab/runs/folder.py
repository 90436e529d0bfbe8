"""Files of a run folder: their names, its configuration and its evaluation."""

import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vaelab.errors import DamagedFileError, UserError
from vaelab.files.atomic import make_folder, write_text
from vaelab.runs.safe_targets import without_resolvers
from vaelab.runs.targets import update_config
from vaelab.training.json_files import read_json

COMPOSED = Path(".hydra", "config.yaml")
"""Path of the composed configuration, relative to the run folder."""
EVALUATION, PROGRESS, FAILURE = "evaluation.json", "progress.json", "failure.json"
BEST_STEP = "best_step"
"""Key in results.json: the optimizer step of the checkpoint that the results are of."""
RENAMED = {"bits_per_dim": "nll_bits_per_dim"}
"""Old and new names of metrics in evaluation.json."""


def read_config(folder: Path, trust: bool = False) -> DictConfig:
    """Reads the composed configuration of a run; calls its resolvers only if `trust`.

    Without `trust` a text such as `${oc.env:HOME}` stands for itself, and reads no variable. Old
    `_target_` names are replaced.

    Raises:
        FileNotFoundError: If there is none.
        DamagedFileError: If it cannot be read, is empty or ends in the middle of a line.
    """
    plain = read_plain_config(folder)
    return OmegaConf.create(plain if trust else without_resolvers(plain))


def read_plain_config(folder: Path) -> dict[str, Any]:
    """Reads the composed configuration of a run as plain values, with interpolations unresolved.

    What an earlier vaelab wrote is as of today, see `update_config`.

    Raises:
        FileNotFoundError: If there is none.
        DamagedFileError: If it cannot be read, is empty or ends in the middle of a line.
    """
    path = folder / COMPOSED
    try:
        text = path.read_text(encoding="utf-8")
        plain: Any = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
        if not (isinstance(plain, dict) and plain and text.endswith(("\n", "}"))):  # YAML or JSON
            raise ValueError("truncated")
        return update_config(plain)
    except FileNotFoundError:
        raise
    except Exception as error:  # a parser's, OmegaConf's
        raise DamagedFileError(f"{path}: damaged, or no configuration of a run") from error


def is_inside(path: Path, folder: Path) -> bool:
    """Returns whether a path, with its links followed, is a folder or anything below it."""
    return path.resolve().is_relative_to(folder.resolve())


def check_links(to: Path, folder: Path) -> None:
    """Raises UserError if what is written to a path in a folder would be written outside of it.

    So it would be by a link on the way to the path, or below it. Of a path that is outside of the
    folder by its name nothing is checked: its user has typed it.

    Args:
        to: The file or folder that is to be written.
        folder: The run or sweep folder, perhaps made by somebody else.
    """
    if not Path(os.path.abspath(to)).is_relative_to(os.path.abspath(folder)):
        return
    for path in (to, *to.rglob("*")):
        if (path == to or path.is_symlink()) and not is_inside(path, folder):
            raise UserError(
                f"{path} is a link to {path.resolve()}, outside of {folder}, where nothing is "
                "written; take the link away"
            )


def write_config(folder: Path, cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Writes a run's composed configuration and its overrides, each atomically; makes the folder.

    They are not left to Hydra, which empties the files of an earlier start before it writes.
    """
    path = folder / COMPOSED
    make_folder(path.parent)
    write_text(path, OmegaConf.to_yaml(cfg))
    write_text(path.with_name("overrides.yaml"), OmegaConf.to_yaml(list(overrides)))


def read_evaluation(folder: Path) -> dict[str, Any]:
    """Reads evaluation.json with old metric names replaced; empty if absent or out of date.

    It is out of date if it is of another checkpoint than the run's results.
    """
    found = read_json(folder / EVALUATION)
    return rename_metrics(found) if is_of_results(found, read_json(folder / "results.json")) else {}


def is_of_results(evaluation: Mapping[str, Any], results: Mapping[str, Any]) -> bool:
    """Returns whether an evaluation and results.json are of one checkpoint; True if not known.

    It is not known of a run without results, nor of runs of vaelab 0.1.0.
    """
    return results.get(BEST_STEP) in (None, evaluation.get("step"))


def rename_metrics(evaluation: dict[str, Any]) -> dict[str, Any]:
    """Returns a copy of an evaluation with old metric names replaced by the present ones."""
    return {RENAMED.get(name, name): entry for name, entry in evaluation.items()}


def flatten(node: Any, path: str = "") -> dict[str, Any]:
    """Flattens nested dictionaries to dotted names; lists, None and other objects become text."""
    if not isinstance(node, dict):
        return {path: node if isinstance(node, (int, float, str, bool)) else str(node)}
    parts = [flatten(value, f"{path}.{key}" if path else str(key)) for key, value in node.items()]
    return {key: value for part in parts for key, value in part.items()}


def git_commit() -> str | None:
    """Returns the commit of this checkout, `-dirty` if changed; None if installed or on failure."""
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


def processor_name() -> str | None:
    """Returns the processor's name as Linux or the platform tells it, or None."""
    try:
        found = re.search(r"^model name\s*: (.+)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or None
