"""The settings of an earlier run: for a new one by `from=RUN`, and as its command gives today.

Does not import torch.
"""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from vaelab.commands import arguments
from vaelab.commands.config_folders import compose_again, compose_config
from vaelab.commands.error_messages import user_message
from vaelab.commands.help_text import default_groups
from vaelab.errors import DamagedFileError, UserError
from vaelab.runs import naming
from vaelab.runs.folder import COMPOSED, read_plain_config
from vaelab.runs.safe_targets import REFERENCE, is_safe_target

KEY, TRUST = "from", "trust"
LEFT = ("ckpt", "rerun", "hydra")
"""Settings that are of one start of a run, and not taken over."""
NOT_COMPARED = (*LEFT, "logger")
"""Settings that are taken over as the run's overrides have them, if at all."""
PLACE = re.compile(r".*\$\{(hydra:runtime\.output_dir\}|oc\.env:).*|\$\{paths\.data\}")
"""A text in conf that is a place to write to: the run folder, that of data, or of a variable."""


def expand_from(words: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """Returns the words of a command line with `from=RUN` replaced by the overrides of that run.

    Whatever else is on the line takes the place of the run's override of the same name. Settings
    that its overrides do not give any more, for another version or experiment has other defaults,
    become overrides, too. Without `from=` returns the words as they are.

    Args:
        words: The words but flags, quoted by `arguments.quote_argument`.
        folders: The folders of configurations, the user's own first.

    Raises:
        UserError: If there is no such run, if it is damaged, if it names code of others or reads
            the environment without `trust=true`, or if what is given does not go with its settings.
    """
    names = [naming.setting_name(word) for word in words]
    if KEY not in names:
        return list(words)
    given = words[names.index(KEY)]
    folder = run_folder(given, names)
    trust = arguments.parse_override(words[names.index(TRUST)]) if TRUST in names else None
    try:
        plain = read_plain_config(folder)
    except FileNotFoundError as error:
        raise UserError(
            f"{given}: is no run folder, for there is no {folder / COMPOSED}"
        ) from error
    every = own = read_overrides(folder)
    try:
        own, now = without_experiment(own, folders)
        own += setting_differences(plain, now)
        if "data" in names:  # other data have another source
            own = [w for w in own if not naming.setting_name(w).startswith("data.source.")]
        if trust is None or trust.value() is not True:
            taken = {key: value for key, value in plain.items() if key not in NOT_COMPARED}
            check_harmless(given, (taken, now), names, folders)
        every = [word for word in own if naming.setting_name(word) not in names]
        every += [word for word in words if naming.setting_name(word) not in (KEY, TRUST)]
        compose_config(folders, "train", [w for w in every if not arguments.is_swept(w)])
    except UserError:
        raise
    except Exception as error:
        if (message := user_message(error, "train", every)) is None:
            raise
        if message.startswith(tuple(map(naming.setting_name, own))):  # not typed here
            message = f"{message}; {given} was started with {shlex.join(own)}"
        raise UserError(message) from error
    return every


def run_folder(given: str, names: Sequence[str]) -> Path:
    """Returns the folder of the run that `from=` names, which may be its .hydra/config.yaml.

    Raises:
        UserError: If it is given twice, is no single path, or is a run to go on with.
    """
    override = arguments.parse_override(given)
    if names.count(KEY) > 1 or override is None or override.is_sweep_override():
        raise UserError(f"{given}: is the folder of one run, from=FOLDER")
    if "ckpt" in names:
        raise UserError(f"{given}: is for a new run, and ckpt= for one that goes on; give one")
    path = Path(str(override.value()))
    path = path.parent if path.name == COMPOSED.name else path
    return path.parent if path.name == COMPOSED.parent.name else path


def read_overrides(folder: Path) -> list[str]:
    """Returns the overrides that a run was started with, but for those in `LEFT`.

    Raises:
        UserError: If they are not in the folder, or damaged.
    """
    path = folder / COMPOSED.with_name("overrides.yaml")
    try:
        words: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        if not (isinstance(words, list) and all(isinstance(word, str) for word in words)):
            raise ValueError("no list of texts")
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: there is no such file, which says what the run was started with"
        ) from error
    except Exception as error:  # a parser's, OmegaConf's
        raise DamagedFileError(f"{path}: damaged, or no overrides of a run") from error
    tops = [naming.setting_name(word).partition(".")[0].partition("/")[0] for word in words]
    return [word for word, top in zip(words, tops, strict=True) if top not in LEFT]


def settings_today(folder: Path) -> dict[str, Any]:
    """Returns the configuration that the command of a folder's run composes to today.

    If its overrides are missing, damaged or not possible any more, it is that of no overrides.
    """
    try:
        cfg = compose_again("train", read_overrides(folder))
    except Exception:  # of a parser, of OmegaConf or Hydra
        cfg = compose_again("train", [])
    plain: Any = OmegaConf.to_container(cfg, resolve=False)
    return plain


def without_experiment(
    own: Sequence[str], folders: Sequence[Path]
) -> tuple[list[str], dict[str, Any]]:
    """Returns overrides with the choices of groups in place of `experiment=`, and what they give.

    An experiment may be a sweep, and its file another since; its settings are in the run's.
    """
    kept = [word for word in own if naming.setting_name(word) != "experiment"]
    arguments.check_overrides(kept, False, folders)
    now = compose_config(folders, "train", kept)
    if len(kept) < len(own):
        groups = dict(default_groups(folders, "train")).keys() - {"experiment"}
        then = compose_config(folders, "train", own).hydra.runtime.choices
        found = {g: then[g] for g in sorted(groups) if "/" not in g and g in then}
        usual = now.hydra.runtime.choices
        kept += [f"{g}={choice}" for g, choice in found.items() if choice != usual[g]]
        now = compose_config(folders, "train", kept)
    plain: Any = OmegaConf.to_container(now, resolve=False)
    del plain["hydra"]
    return kept, plain


def setting_differences(
    then: Mapping[str, Any], now: Mapping[str, Any], path: str = ""
) -> Iterator[str]:
    """Yields overrides that make the settings of now those of then; skips `LEFT` and loggers.

    Loggers are as the overrides have them: a run keeps the path of its folder in their settings.
    What is only in the settings of now stays, for it is new, unless it belongs to another target.
    """
    if then.get("_target_") != now.get("_target_"):
        yield from (f"~{path}{key}" for key in now if key not in then)
    for key, value in then.items():
        here, other = f"{path}{key}", now.get(key)
        if here in NOT_COMPARED or (key not in now and not path):  # a setting of an earlier vaelab
            continue
        if isinstance(value, dict) and (value or isinstance(other, dict)):
            below = other if isinstance(other, dict) else {}
            yield from setting_differences(value, below, f"{here}.")
        elif key not in now or value != other:
            yield f"++{here}={override_value(value)}"


def override_value(value: Any) -> str:
    """Returns a plain value in Hydra's grammar, with its interpolations as they are."""
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{override_value(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, list):
        return f"[{','.join(map(override_value, value))}]"
    if isinstance(value, str):
        # OmegaConf parses the override, too, and in an interpolation an escaped quote is none
        return naming.quote_raw(value, '"' if "'" in value and '"' not in value else "'")
    return "null" if value is None else str(value)


def check_harmless(
    given: str, settings: Iterable[Mapping[str, Any]], names: Sequence[str], folders: Sequence[Path]
) -> None:
    """Raises UserError if settings name code, read variables or write where no file of conf does.

    Something is written where a setting's last name is that of a `PLACE` in a file of conf. Safe
    is, too, what `safe_targets` lists.

    Args:
        given: The word with the run, for the message.
        settings: Settings of the run, as dictionaries.
        names: Names of settings that are not from the run, and skipped.
        folders: The folders of configurations.
    """
    files = [path for folder in folders for path in folder.rglob("*.yaml")]
    found = [pair for file in files for pair in texts(OmegaConf.load(file))]
    known = {(is_target(path), text) for path, text in found}
    places = {last_name(path) for path, text in found if PLACE.fullmatch(text)}
    for path, text in [pair for every in settings for pair in texts(every)]:
        target = is_target(path)
        if (target, text) in known or path in names:
            continue
        if target and is_safe_target(path.removesuffix("._target_"), text):
            continue
        if target or "${" in REFERENCE.sub("", text) or last_name(path) in places:
            why = "is no part of vaelab's, and code from elsewhere is not run"
            if not target:
                resolved = "${" in REFERENCE.sub("", text)
                why = "may read the environment" if resolved else "is where it writes"
            raise UserError(
                f"{given}: {path}={text} {why}; where you trust this folder, give trust=true"
            )


def texts(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yields (dotted name, text) of each text in a configuration, unresolved, at any depth."""
    if OmegaConf.is_config(node):
        node = OmegaConf.to_container(node, resolve=False)
    if isinstance(node, dict):
        for key, value in node.items():
            yield from texts(value, f"{path}.{key}".lstrip("."))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from texts(value, f"{path}.{i}")
    elif isinstance(node, str):
        yield path, node


def is_target(path: str) -> bool:
    """Returns whether a setting names code: whether its last name is `_target_`."""
    return last_name(path) == "_target_"


def last_name(path: str) -> str:
    """Returns the last part of a dotted name."""
    return path.rpartition(".")[2]
