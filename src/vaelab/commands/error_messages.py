"""One-line messages for errors that the user can mend, with what to type instead.

Does not import torch.
"""

import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from vaelab.commands.config_folders import CONF
from vaelab.commands.help_text import default_groups
from vaelab.errors import UserError, exception_chain, first_line, spelling_hint
from vaelab.files.atomic import first_write_error

OUT_OF_MEMORY = re.compile(
    r"can't allocate memory|not enough memory|overflow|bad_alloc|[Ii]nvalid buffer size"
)
"""What torch says where memory ran out, or the size of a tensor is no number of 64 bits."""
LARGE = {
    "train": "data.batch_size, model.num_samples or network",
    "evaluate": "num_samples or metrics.*.count",
    "generate": "count",
}
"""Settings by command that a lot of memory may be taken by."""


def user_message(
    error: BaseException, config_name: str, words: Sequence[str] | None = None
) -> str | None:
    """Returns the message for an error that the user can mend; None for a program fault.

    Args:
        error: The error.
        config_name: The command.
        words: Its overrides; default: those of this process, from sys.argv.
    """
    words = sys.argv[1:] if words is None else words
    for cause in exception_chain(error):
        if isinstance(cause, UserError):
            return str(cause)
        if room := out_of_memory_message(cause, config_name):
            return room
    if isinstance(first := first_write_error(error), OSError):
        place = f" {first.filename}" if first.filename else ""
        return f"cannot write{place}: {first.strerror}"
    if isinstance(error, MissingConfigException):
        return unknown_choice_message(error)
    if isinstance(error, ConfigCompositionException):
        return unknown_setting_message(error, config_name, words)
    if isinstance(error, InstantiationException):
        innermost = list(exception_chain(error))[-1]
        key = re.search(r"full_key: (\S+)", str(error))
        return f"{key[1] if key else 'configuration'}: {first_line(innermost)}"
    if isinstance(error, InterpolationKeyError) and (gone := deleted_setting(str(error), words)):
        return f"~{gone}: other settings refer to it; change it by {gone}=..."
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return first_line(error)
    if isinstance(error, (ValueError, RuntimeError)) or is_error_named(
        error, "MisconfigurationException"
    ):
        frames = traceback.extract_tb(error.__traceback__)
        if frames and "lightning" in Path(frames[-1].filename).parts:
            return f"trainer: {first_line(error)}"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    if is_before_task(error):
        return f"hydra: {first_line([*exception_chain(error)][-1])}"
    return None


def is_before_task(error: BaseException) -> bool:
    """Returns whether an error came from Hydra while it prepared a command, not from vaelab."""
    frames = traceback.extract_tb(error.__traceback__)
    here, theirs = Path(__file__).parents[1], Path(hydra.__file__).parent
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(here)]
    is_only_cli = all(Path(f.filename).name == "cli.py" and f.name != "job" for f in ours)
    return is_only_cli and any(Path(f.filename).is_relative_to(theirs) for f in frames)


def is_error_named(error: BaseException, name: str) -> bool:
    """Returns whether an error's class or a base of it has this name, without importing it."""
    return name in (kind.__name__ for kind in type(error).__mro__)


def is_lost_connection(error: BaseException) -> bool:
    """Returns whether an error is of torch's connections between the processes of a training."""
    return any(
        is_error_named(cause, "DistError")
        or (isinstance(cause, RuntimeError) and re.search("gloo|nccl|by peer", str(cause), re.I))
        for cause in exception_chain(error)
    )


def out_of_memory_message(error: BaseException, config_name: str) -> str | None:
    """Returns one line about memory that ran out, or None for any other error.

    A size that does not fit 64 bits, of which torch says that it overflows, is out of memory too.
    """
    text = str(error)
    if not (
        isinstance(error, (MemoryError, OverflowError))
        or is_error_named(error, "OutOfMemoryError")
        or (isinstance(error, (RuntimeError, TypeError, ValueError)) and OUT_OF_MEMORY.search(text))
    ):
        return None
    asked = re.search(r"allocate ([\d.]+) (bytes|[KMGT]iB)", text)
    size = f" for {float(asked[1]) / 2**30:.3g} GiB" if asked and asked[2] == "bytes" else ""
    size = size or (f" for {asked[1]} {asked[2]}" if asked else "")
    return (
        f"out of memory: there was no room{size}; a smaller {LARGE.get(config_name, 'model')} "
        "takes less"
    )


def unknown_choice_message(error: MissingConfigException) -> str:
    """Returns the message for `model=foo` without a foo.yaml in conf/model, with what is meant.

    That is the most similar choice, else all. Without choices, or a group, returns the first line
    of Hydra's own message.
    """
    group, _, choice = (error.missing_cfg_file or "").rpartition("/")
    options = [o for o in error.options or [] if not o.startswith("_")]  # bases of others
    if not group or not options:
        return first_line(error)
    return f"{group}={choice}: there is no such {group}; {spelling_hint(choice, options)}"


def unknown_setting_message(
    error: ConfigCompositionException, config_name: str, words: Sequence[str]
) -> str:
    """Returns the message for a setting in `words` that is unknown, or added but there already.

    Names a similar setting. Composes the configuration without the unknown settings, to know
    which names there are. Any other error gives the first line of Hydra's own message.
    """
    if already := re.search(r"already at '([^']+)'|Multiple values for ([^.]+)\.", str(error)):
        return f"+{already[1] or already[2]}: is in the configuration; without the + it is set"
    wrong = missing_setting(error)
    if not wrong:
        return first_line(error)
    if "@" in wrong:
        return f"{wrong}: there is no such setting; did you mean {wrong.partition('@')[0]}=...?"
    overrides = [o for o in words if re.match(r"[+~\w]", o) and "=" in o]
    parsed = OverridesParser.create().parse_overrides(overrides)
    lines = {o.key_or_group: o.input_line or "" for o in parsed if not o.is_sweep_override()}
    lines.pop(wrong, None)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        while True:
            try:
                cfg = compose(config_name, list(lines.values()), return_hydra_config=True)
                return unknown_setting_hint(wrong, cfg, config_name)
            except Exception as further:  # another setting is unknown too, or wrong
                if lines.pop(missing_setting(further), None) is None:
                    return f"{wrong}: there is no such setting"


def deleted_setting(message: str, words: Sequence[str]) -> str | None:
    """Returns the setting of a `~` override that an error says is missing; None for another."""
    missing = re.search(r"Interpolation key '([^']+)' not found", message)
    deleted = [word[1:].partition("=")[0] for word in words if word.startswith("~")]
    found = f"{missing[1] if missing else ''}."
    return next((name for name in deleted if found.startswith(f"{name}.")), None)


def missing_setting(error: Exception) -> str:
    """Returns the setting that Hydra's error says does not exist; empty for other errors."""
    found = re.search(r"Could not (?:override|delete from config\.) '([^']+)'", str(error))
    return found[1] if found else ""


def setting_paths(node: Any, path: str = "") -> Iterator[str]:
    """Yields the dotted names of all leaf settings in nested dictionaries."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from setting_paths(value, f"{path}.{key}" if path else str(key))
    else:
        yield path


def unknown_setting_hint(wrong: str, cfg: DictConfig, config_name: str) -> str:
    """Returns the message for an unknown setting, with what to type instead; imports its target.

    That is a setting of a similar name, or `+` for one that is accepted but not given. The target
    is the `_target_` beside the setting, and is imported to know which parameters it accepts.
    """
    if wrong in cfg:  # Hydra deletes only settings that have a value
        return f"~{wrong}: there is nothing to take away; {wrong} is null"
    every = setting_paths(OmegaConf.to_container(cfg))
    if deeper := sorted(path for path in every if path.endswith(f".{wrong}")):
        return f"{wrong}: there is no such setting; did you mean {deeper[0]}?"
    parent, _, name = wrong.rpartition(".")
    if not parent:
        groups = [group for group, _ in default_groups([CONF], config_name)]
        return f"{wrong}: there is no such setting; {spelling_hint(wrong, [*cfg, *groups])}"
    beside = None
    with suppress(OmegaConfBaseException, TypeError):  # of what is there, or of an index of a list
        beside = OmegaConf.select(cfg, parent)
    if not isinstance(beside, DictConfig):
        return f"{wrong}: there is no such setting, and no {parent}"
    known = {str(key) for key in beside if not str(key).startswith("_")}
    if "_target_" in beside:
        from hydra.utils import get_object

        from vaelab.runs import validation  # slow: what the target would take

        with suppress(Exception):  # the target may be as wrong as the setting
            known |= validation.optional_settings(get_object(beside["_target_"]))
    if name in known:
        return f"{wrong}: is not in the configuration yet; add it with +{wrong}=..."
    return f"{wrong}: there is no such setting; {spelling_hint(name, known, f'{parent}.')}"
