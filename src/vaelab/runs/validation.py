"""Checks a composed configuration against the annotated constructors that it names.

The signature of a `_target_` is the schema of its settings: their names, types and ranges.
"""

import inspect
import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue
from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError, types
from pydantic.errors import PydanticUserError

from vaelab.errors import UserError, nearest
from vaelab.runs.targets import locate

Parameters = dict[str, Any]  # name -> annotation
TOLD = {"class_names"}
"""Parameters with a default that are no settings: the data tell them."""


def check(cfg: DictConfig, task: Callable[..., Any]) -> None:
    """Checks all settings before anything starts.

    Args:
        cfg: The composed configuration.
        task: A function whose keywords are the top-level settings.

    Raises:
        UserError: For the first setting that is unknown, missing, or of a wrong type or range.
    """
    try:
        settings = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise UserError(f"{error.full_key} has no value; give {error.full_key}=...") from error
    assert isinstance(settings, dict)
    check_call(task, settings, path="")


def check_call(target: Callable[..., Any], settings: Mapping[Any, Any], path: str) -> None:
    """Checks the settings of one target, and of those inside it."""
    known, open_ended = parameters(target)
    for key, value in sorted(settings.items(), key=lambda item: has_target(item[1])):
        here = f"{path}{key}"
        if key in {"_target_", "_partial_", "_args_", "_convert_", "_recursive_"}:
            continue
        if key not in known and not open_ended:
            name = getattr(target, "__name__", str(target))
            owner = f"{name} has no such setting" if path else "there is no such setting"
            possible = (known.keys() & settings.keys()) | offered(target)
            raise UserError(f"{here}={show(value)}: {owner}; {nearest(str(key), possible)}")
        if has_target(value):
            check_node(value, here)
        elif key in known:
            check_value(here, value, known[key])


def check_node(node: Any, path: str) -> None:
    """Checks a piece of the configuration that holds targets at some depth."""
    if isinstance(node, Mapping) and "_target_" in node:
        try:
            target = locate(node["_target_"])
        except Exception as error:
            raise UserError(f"{path}._target_={node['_target_']}: cannot be imported") from error
        check_call(target, node, f"{path}.")
    elif isinstance(node, Mapping):
        for key, value in node.items():
            check_node(value, f"{path}.{key}")
    elif isinstance(node, list):
        for i, value in enumerate(node):
            check_node(value, f"{path}.{i}")


def check_value(path: str, value: Any, annotation: Any) -> None:
    """Checks one plain value; JSON's rules, so that a list may be a tuple but 2.5 no integer."""
    adapter = type_adapter(annotation)
    if adapter is None:
        return
    try:
        adapter.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        wanted = dict.fromkeys(map(wording, error.errors()))
        wanted = {text: None for text in wanted if text} or {"is of no type for this": None}
        raise UserError(f"{path}={show(value)}: {' or '.join(wanted)}") from error


def wording(error: Mapping[str, Any]) -> str:
    """What one of pydantic's errors says, in the words of YAML."""
    if error["type"] == "needs_python_object":  # an alternative that no YAML can name
        return ""
    if error["type"] == "too_short":
        return f"should have at least {error['ctx']['min_length']} item"
    return error["msg"].removeprefix("Input ").replace("valid array", "valid list")


def type_adapter(annotation: Any) -> TypeAdapter[Any] | None:
    """A validator of an annotation, or None for one that says nothing about plain values."""
    if annotation is inspect.Parameter.empty:
        return None
    config = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
    try:
        return TypeAdapter(annotation, config=config)
    except (PydanticSchemaGenerationError, PydanticUserError, TypeError):
        return None


@cache
def parameters(target: Callable[..., Any]) -> tuple[Parameters, bool]:
    """What a target may be given, and whether it takes any keyword.

    A constructor that passes `**parts` on is followed to the class behind it.
    """
    if not inspect.isclass(target):
        return of_function(target)
    found: Parameters = {}
    for owner in target.__mro__:
        if "__init__" not in vars(owner):
            continue
        if owner.__module__ == "torch.nn.modules.module":  # takes any keyword, to refuse it
            return found, False
        own, passes_on = of_function(vars(owner)["__init__"])
        found = own | found
        if not passes_on:
            return found, False
    return found, True


def of_function(function: Callable[..., Any]) -> tuple[Parameters, bool]:
    try:
        signature = inspect.signature(function)
    except ValueError:  # some builtins have none
        return {}, True
    # A script names pydantic's types without importing them, which takes a while.
    known = vars(types) | getattr(inspect.unwrap(function), "__globals__", {})
    try:
        hints = get_type_hints(function, known, include_extras=True)
    except (NameError, TypeError):  # names that were imported for a type checker only
        hints = {}
    kinds = signature.parameters.values()
    named = {p.name: hints.get(p.name, p.empty) for p in kinds if p.kind.name in NAMED}
    named.pop("self", None)
    return named, any(p.kind is p.VAR_KEYWORD for p in kinds)


NAMED = {"POSITIONAL_OR_KEYWORD", "KEYWORD_ONLY"}


def offered(target: Callable[..., Any]) -> set[str]:
    """The names of settings that a target has a default for.

    Whatever has none is set already, or given by the caller and not by a setting.
    """
    functions = [target]
    if inspect.isclass(target):
        functions = [
            vars(owner)["__init__"] for owner in target.__mro__ if "__init__" in vars(owner)
        ]
    return set(parameters(target)[0]) & set().union(*map(optional, functions)) - TOLD


def optional(function: Callable[..., Any]) -> set[str]:
    """The names of parameters that have a default."""
    try:
        named = inspect.signature(function).parameters.values()
    except ValueError:  # some builtins have none
        return set()
    return {parameter.name for parameter in named if parameter.default is not parameter.empty}


def has_target(value: Any) -> bool:
    """Whether there is a `_target_` in the value, at any depth."""
    if isinstance(value, Mapping):
        return "_target_" in value or any(map(has_target, value.values()))
    return isinstance(value, list) and any(map(has_target, value))


def show(value: Any) -> str:
    """A value as the command line writes it."""
    text = value if isinstance(value, str) else json.dumps(value).replace("Infinity", "inf")
    return text if len(text) <= 40 else f"{text[:37]}..."
