"""Errors in the words of Python: `model.beta=4` of the command line is `beta=4` in a call."""

import inspect
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from typing import Any

from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vaelab.api.overrides import ALIASES, keyword_groups, part_names, setting_names
from vaelab.commands import arguments, evaluate
from vaelab.commands.config_folders import CONF, compose_config
from vaelab.commands.error_messages import setting_paths
from vaelab.errors import UserError
from vaelab.runs import naming

VALUE = r"\[[^\]]*\]|\{[^}]*\}|'[^']*'|\"[^\"]*\"|\.\.\.|[^\s,;:()?]*[^\s,;:()?.]"
SETTING = re.compile(
    rf"(?<![\w./={{\"'\[-])[+~]{{0,2}}(?P<name>[a-z_]+(?:\.\w+)*)(?:=(?P<value>{VALUE}))?"
)
"""A setting of the command line in a message, as model.beta=4, with or without its value."""
KEYWORDS = {
    **{setting: keyword for keyword, setting in ALIASES.items()},
    "hydra.run.dir": "folder",
    "from": "like",
}
"""Keywords of Python by the setting that they stand for."""


def explain_error(message: str, keywords: Mapping[str, Any], words: Sequence[str]) -> str:
    """Returns the message of an error of the command line in the words of Python.

    Args:
        message: The message.
        keywords: The keywords of the call.
        words: The overrides that they, and others, stand for.
    """
    parts = part_names() | {*keyword_groups()}
    for name in keywords.keys() - parts:
        of_model = re.match(rf"model\.{re.escape(name)}(\.\w+)*: there is no such setting", message)
        if of_model and (hint := explain_unknown(name, keywords[name], words, message)):
            return hint
    absent = re.search(r"there is no such setting, and no (?:model\.)?(\w+)(?:\.\w+)?$", message)
    if absent:
        group = absent[1]
        if choices := [c for c in arguments.choices_in(CONF / group) if c != "none"]:
            given = f'{group}={{"name": "{choices[0]}", ...}}'
            return (
                f"{group}: there is none to set; choose one, as in {given}, of {', '.join(choices)}"
            )
    return python_wording(message)


def explain_unknown(name: str, value: Any, words: Sequence[str], message: str) -> str | None:
    """Returns the message for a keyword that is no setting; None if the model has a similar one.

    Such a keyword was taken for a setting of the model. It may be one of another part.
    """
    kept = [word for word in words if f"{naming.setting_name(word)}.".find(f"model.{name}.") != 0]
    plain: Any = {}
    with suppress(HydraException, OmegaConfBaseException, UserError):  # another may be wrong, too
        plain = OmegaConf.to_container(compose_config([CONF], "train", kept))
        del plain["hydra"]
    leaves = [path.split(".") for path in setting_paths(plain)]
    nodes = {".".join(each[:i]) for each in leaves for i in range(2, len(each) + 1)}
    found = [path for path in nodes if path.rpartition(".")[2] == name]
    found = sorted(found, key=lambda path: (path.count("."), path))[:2]
    if found:
        meant = " or ".join(keyword_text(path, python_text(value)) for path in found)
        return f"{name}: there is no such setting; did you mean {meant}?"
    if message.endswith("?"):
        return None
    known = [*ALIASES, *keyword_groups(), *setting_names()]
    if close := get_close_matches(name, known, n=1):
        return f"{name}: there is no such setting; did you mean {close[0]}?"
    dictionaries = 'trainer={"devices": 1} or optimizer={"lr": 0.001}'
    told = python_wording(message)
    return f"{told}; settings of other parts are dictionaries, such as {dictionaries}"


def python_wording(message: str) -> str:
    """Returns a message with the settings of the command line as keywords of Python."""
    tops = {*keyword_groups(), *setting_names(), "model", "hydra", "from"}
    tops |= {*inspect.signature(evaluate.settings_schema).parameters}
    dotted: list[str] = []

    def in_python(match: re.Match[str]) -> str:
        """The keyword for a setting in the message; notes the name of one without a value."""
        name, value = match["name"], match["value"]
        top, _, rest = name.partition(".")
        if top not in tops or (top == "hydra" and name not in KEYWORDS):
            return match[0]
        if value is not None:
            return keyword_text(name, python_text(parsed_value(value)))
        if not rest or match[0] != name:
            return match[0]
        found = KEYWORDS.get(name, rest if top == "model" else name)
        if "." in found:
            dotted.append(found.partition(".")[0])
        return found

    told = SETTING.sub(in_python, message)
    return f'{told} ({dotted[0]}.x is {dotted[0]}={{"x": ...}})' if dotted else told


def parsed_value(text: str) -> Any:
    """Returns the value of a setting as Hydra reads it; what it cannot read, as a text."""
    override = None if text == "..." else arguments.parse_override(f"x={text}")
    if override is None or override.is_sweep_override():
        return ... if text == "..." else text
    return override.value()


def keyword_text(path: str, value: str) -> str:
    """Returns the keyword of Python for a setting, `data={"source": {"size": 32}}`."""
    name = path.removeprefix("model.")
    if path in KEYWORDS or "." not in name:
        return f"{KEYWORDS.get(path, name)}={value}"
    top, *rest = name.split(".")
    for key in reversed(rest):
        value = f'{{"{key}": {value}}}'
    return f"{top}={value}"


def python_text(value: Any) -> str:
    """Returns a value as Python writes it, with texts in double quotes."""
    if isinstance(value, Mapping):
        pairs = [f"{python_text(str(key))}: {python_text(inner)}" for key, inner in value.items()]
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(python_text, value))}]"
    if value is ...:
        return "..."
    if isinstance(value, str) or not isinstance(value, (bool, int, float, type(None))):
        return f'"{value}"'
    return repr(value)
