"""Detection, comparison and deletion of a previous run in the same folder."""

import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from math import inf
from pathlib import Path, PurePath
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vaelab.errors import DamagedFileError, UserError
from vaelab.runs.comparability import ELSEWHERE, SPLIT
from vaelab.runs.folder import COMPOSED, EVALUATION, PROGRESS, flatten, read_plain_config
from vaelab.runs.naming import is_free
from vaelab.runs.targets import implied_names
from vaelab.training.json_files import read_json

UNMEASURED = "unmeasured"
OPTIMIZER = re.compile(r"model\.(\w+_)?(optimizer|scheduler)\b")
"""Settings of how a model is trained, which leave the loss as it is."""


def finished_elbo(folder: Path) -> float | None:
    """Returns val/elbo from results.json, -inf where it is null; None for an unfinished run.

    results.json is written atomically at the end of a run. The value is null where it is not
    finite, as for an auto-encoder.
    """
    found = read_json(folder / "results.json")
    if "val/elbo" not in found:
        return None
    return -inf if found["val/elbo"] is None else found["val/elbo"]


def unmeasured_metrics(folder: Path) -> list[str]:
    """Returns the metrics of `evaluate` that a finished run has yet to measure; empty if none."""
    return read_json(folder / "results.json").get(UNMEASURED, [])


def has_run(folder: Path) -> bool:
    """Returns whether a folder holds a configuration, and a checkpoint or final results."""
    begun = (folder / "checkpoints" / "last.ckpt").exists() or finished_elbo(folder) is not None
    return begun and (folder / COMPOSED).exists()


def check_same_run(
    folder: Path, shown: Path, cfg: DictConfig, today: Callable[[], Mapping[str, Any]]
) -> None:
    """Raises UserError if the folder's run has other settings, or none; ignores `FREE` settings.

    A setting that is new since the run was made counts as if the run had its default. A
    setting outside of any part that vaelab has no more, as `graph` of 0.1.0, is ignored.

    Args:
        folder: The run folder.
        shown: The folder as the user would type it, for the message.
        cfg: The composed configuration.
        today: Returns the configuration that the command of the folder's run composes to today.

    Raises:
        UserError: With the first setting that differs.
        DamagedFileError: If the configuration of the folder's run cannot be read.
    """
    try:
        found = read_plain_config(folder) if (folder / COMPOSED).exists() else {}
    except DamagedFileError as error:
        raise DamagedFileError(
            f"{error}, so that its settings are not known; ckpt=last goes on all the same, and "
            "rerun=true starts over"
        ) from error
    present = plain_settings(cfg)
    known = {key: value for key, value in found.items() if key in present}
    before, now = identity_settings(known), identity_settings(present)
    if found:
        before |= new_settings(found, now, lambda: identity_settings(today()))
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            on = "ckpt=last goes on all the same"
            if name in implied_names(present):
                on = f"{earlier_words(before, now, present)} goes on with it"
            raise UserError(
                f"{shown} holds a run with {name}={before.get(name, 'nothing')}, not "
                f"{now.get(name, 'nothing')}; {on}, rerun=true starts over, and "
                "hydra.run.dir=FOLDER names another folder"
            )


def earlier_words(
    before: Mapping[str, object], now: Mapping[str, object], present: Mapping[str, Any]
) -> str:
    """Returns the settings, newer than a run, that its command needs to go on, as `name=value`.

    Args:
        before: Settings of the run by dotted name.
        now: Those of the command.
        present: The configuration of the command.
    """
    names = [name for name in implied_names(present) if before.get(name) != now.get(name)]
    values = {name: before.get(name) for name in sorted(names)}
    return " ".join(f"{name}={'null' if v is None else v}" for name, v in values.items())


def new_settings(
    found: Mapping[str, Any], names: Iterable[str], today: Callable[[], Mapping[str, object]]
) -> dict[str, object]:
    """Returns from `today` those of the names that an earlier configuration lacks.

    A setting that is null there, or is inside of a part that is null there, is not lacking.

    Args:
        found: The earlier configuration.
        names: Dotted names of settings.
        today: Returns settings by dotted name; is called only if a name is lacking.
    """
    every = flatten(found)
    lacking = [name for name in names if not any(part in every for part in leading_parts(name))]
    usual = today() if lacking else {}
    return {name: usual[name] for name in lacking if name in usual}


def leading_parts(name: str) -> list[str]:
    """Returns `a`, `a.b` and `a.b.c` of a dotted name `a.b.c`."""
    parts = name.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


def plain_settings(cfg: DictConfig) -> dict[str, Any]:
    """Returns a configuration as plain values, with interpolations unresolved."""
    plain: Any = OmegaConf.to_container(cfg, resolve=False)
    return plain


def split_settings(plain: Mapping[str, Any]) -> dict[str, object]:
    """Returns, by dotted names, data source, seed and sizes that divide images into three parts.

    These are for training, validation and test.
    """
    data = plain["data"]
    names = ("source", "split_seed", "val_size", "test_size")
    return flatten({"data": {str(n): v for n, v in data.items() if n in names}})


def loss_settings(plain: Mapping[str, Any]) -> dict[str, object]:
    """Returns, by dotted names, the settings that decide what the best checkpoint is chosen by.

    These are of the model but for its optimizers, of the data but for where they are and how they
    are read, and of the monitor.
    """
    data = (*SPLIT, "pixels", "columns", "numbers", "source")
    chosen = "model.", "callbacks.checkpoint.m", *(f"data.{name}" for name in data)
    left = tuple(f"data.source.{name}" for name in ELSEWHERE)
    every = identity_settings(plain)
    found = {n: v for n, v in every.items() if n.startswith(chosen) and not n.startswith(left)}
    for name in ("data.source.path", "data.source.name"):
        if name in found:
            found[name] = PurePath(str(found[name])).name
    return {name: v for name, v in found.items() if not OPTIMIZER.match(name)}


def identity_settings(plain: Mapping[str, Any]) -> dict[str, object]:
    """Returns a run's settings but `FREE` ones, by dotted names; omits null, and references to it.

    So a setting that has been new since the run was made, and is null, makes it no other run.
    """
    every = flatten(plain)
    nulls = {name for name, value in every.items() if value == "None"}
    omitted = {"None", *(f"${{{name}}}" for name in nulls)}
    return {
        name: value for name, value in every.items() if value not in omitted and not is_free(name)
    }


def delete_outputs(folder: Path) -> None:
    """Deletes checkpoints, figures, results, evaluation and logged metrics; keeps other files.

    It keeps failure.json and Hydra's log. Also deletes progress.json.
    """
    for name in ("checkpoints", "figures"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("results.json", EVALUATION, PROGRESS):
        (folder / name).unlink(missing_ok=True)
    delete_curves(folder)


def delete_curves(folder: Path) -> None:
    """Deletes what loggers wrote into a run folder: metrics, and ids of its runs elsewhere."""
    for pattern in ("events.out.*", "metrics.csv", ".hydra/tracking.json"):
        for path in folder.glob(pattern):
            path.unlink()
