"""Validation of a composed configuration against the annotated constructors that it names.

The signature of a `_target_` is the schema of its settings: their names, types and ranges.
"""

import inspect
import json
import sys
from collections.abc import Callable, Mapping
from functools import cache
from typing import (
    Annotated,
    Any,
    Literal,
    Protocol,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
    runtime_checkable,
)

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue
from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError, types
from pydantic.errors import PydanticUserError

from vaelab.errors import UserError, spelling_hint
from vaelab.runs.targets import import_target

T = TypeVar("T")
Parameters = dict[str, Any]  # name -> annotation
TOLD = {"class_names", "units", "pixel_scale"}
"""Parameters with a default that are no settings: the data set gives their values."""
RESERVED = {
    "_target_": str,
    "_partial_": bool,
    "_recursive_": bool,
    "_convert_": Literal["none", "partial", "object", "all"],
    "_args_": list[Any],
}
"""Keys that Hydra reads itself, with the types of their values."""


@runtime_checkable
class MarksOptions(Protocol):
    """A mark in an annotation, as `vaelab.parts.OptionsOf`, which is not imported: it has torch.

    Attributes:
        setting: Name of the setting whose target the options are for.
    """

    setting: str


def check_config(cfg: DictConfig, task: Callable[..., Any]) -> None:
    """Raises UserError for the first unknown, unset or invalid setting; imports every `_target_`.

    Args:
        cfg: The composed configuration.
        task: A function whose keywords are the top-level settings.

    Raises:
        UserError: For the first invalid setting, also if it is out of range.
    """
    try:
        settings = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise UserError(f"{error.full_key} has no value; give {error.full_key}=...") from error
    assert isinstance(settings, dict)
    check_plain(settings, "")
    for name in parameters(task)[0]:
        if name not in settings:
            raise UserError(f"{name}: is missing, and has no value by itself; leave out ~{name}")
    check_call(task, settings, path="")


def check_plain(value: Any, path: str) -> None:
    """Raises UserError for an integer of over 64 bits, or keys of Hydra's without a `_target_`.

    Looks at every value in nested dicts and lists.
    """
    if isinstance(value, Mapping):
        if (wrong := RESERVED.keys() & value.keys()) and "_target_" not in value:
            raise UserError(f"{path}.{min(wrong)}: there is no {path}._target_ for it")
        for key, inner in value.items():
            check_plain(inner, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            check_plain(inner, f"{path}.{i}")
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise UserError(f"{path}={value}: should be an integer of 64 bits")


def build_checked(
    target: Callable[..., T], settings: Mapping[str, Any], path: str, *args: Any
) -> T:
    """Resolves and checks a target's settings, and calls it with `args` and these.

    Raises:
        UserError: For the first setting that is wrong.
    """
    plain = OmegaConf.to_container(OmegaConf.create(dict(settings)), resolve=True)
    assert isinstance(plain, dict)
    check_call(target, plain, path)
    return target(*args, **{str(name): value for name, value in plain.items()})


def check_call(target: Callable[..., Any], settings: Mapping[Any, Any], path: str) -> None:
    """Raises UserError if settings, or targets inside, do not fit a signature; skips absent ones.

    Parameters that are not given are not checked, even without a default.
    """
    known, open_ended = parameters(target)
    instantiates = settings.get("_recursive_", True) is not False
    for key, value in sorted(settings.items(), key=lambda item: has_target(item[1])):
        here = f"{path}{key}"
        if key in RESERVED:
            check_value(here, value, RESERVED[key])
            if key == "_args_" and value and settings.get("_partial_"):
                raise UserError(
                    f"{here}={shown_value(value)}: vaelab gives these; name the settings"
                )
            continue
        if key not in known and not open_ended:
            name = getattr(target, "__name__", str(target))
            owner = f"{name} has no such setting" if path else "there is no such setting"
            possible = (known.keys() & settings.keys()) | optional_settings(target)
            raise UserError(
                f"{here}={shown_value(value)}: {owner}; {spelling_hint(str(key), possible)}"
            )
        if has_target(value):
            check_node(value, here)
        if key in known and not (instantiates and has_target(value) and may_be_object(known[key])):
            check_value(here, value, known[key])
            check_options(here, value, known[key], settings)


def check_options(path: str, value: Any, annotation: Any, settings: Mapping[Any, Any]) -> None:
    """Raises UserError if options of another setting's target do not fit it; see `OptionsOf`."""
    for mark in getattr(annotation, "__metadata__", ()):
        node = settings.get(mark.setting) if isinstance(mark, MarksOptions) else None
        if not isinstance(node, Mapping) or "_target_" not in node:
            continue
        target = import_target(node["_target_"])
        possible = optional_settings(target)
        for name in value:
            if name not in possible:
                raise UserError(
                    f"{path}.{name}={shown_value(value[name])}: {target.__name__} has no such "
                    f"option; {spelling_hint(str(name), possible)}"
                )
        check_call(target, value, f"{path}.")


def may_be_object(annotation: Any) -> bool:
    """Returns whether an annotation has a part that only a `_target_` can make, such as a callable.

    That is so unless it is made of plain values: numbers, texts, lists, dictionaries, null.
    """
    if get_origin(annotation) is Annotated:
        return may_be_object(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return False
    if inside := get_args(annotation):
        return get_origin(annotation) is Callable or any(map(may_be_object, inside))
    return annotation not in PLAIN


PLAIN = (Any, int, float, str, bool, list, dict, tuple, type(None), None, Ellipsis)


def check_node(node: Any, path: str) -> None:
    """Raises UserError if a target in nested dicts or lists cannot be imported or does not fit."""
    if isinstance(node, Mapping) and "_target_" in node:
        try:
            target = import_target(node["_target_"])
        except Exception as error:
            shown = shown_value(node["_target_"])
            raise UserError(f"{path}._target_={shown}: cannot be imported") from error
        if not callable(target):
            kind = type(target).__name__
            raise UserError(
                f"{path}._target_={node['_target_']}: a {kind} is no class and no function"
            )
        check_call(target, node, f"{path}.")
    elif isinstance(node, Mapping):
        for key, value in node.items():
            check_node(value, f"{path}.{key}")
    elif isinstance(node, list):
        for i, value in enumerate(node):
            check_node(value, f"{path}.{i}")


def check_value(path: str, value: Any, annotation: Any) -> None:
    """Raises UserError unless a value fits an annotation; skips those pydantic cannot use.

    By strict JSON rules: a list fits a tuple, but 2.5 does not fit an integer.
    """
    adapter = type_adapter(annotation)
    if adapter is None:
        return
    try:
        adapter.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        wrong = error.errors()
        if isinstance(value, Mapping):  # say which of its values is wrong
            for name in wrong[0]["loc"]:
                if not isinstance(value, Mapping) or name not in value:
                    break
                path, value = f"{path}.{name}", value[name]
        wanted = dict.fromkeys(map(error_wording, wrong))
        wanted = {text: None for text in wanted if text} or {"is of no type for this": None}
        raise UserError(f"{path}={shown_value(value)}: {' or '.join(wanted)}") from error


def error_wording(error: Mapping[str, Any]) -> str:
    """Returns a pydantic error as `should ...`; empty where a Python object is asked for."""
    if error["type"] == "needs_python_object":  # a type that YAML cannot hold
        return ""
    if error["type"] == "too_short":
        return f"should have at least {error['ctx']['min_length']} item"
    return (
        error["msg"]
        .removeprefix("Input ")
        .replace("valid array", "valid list")
        .replace("an object", "a dictionary")
    )


def type_adapter(annotation: Any) -> TypeAdapter[Any] | None:
    """Returns a validator for an annotation; None if it is empty or unknown to pydantic."""
    if annotation is inspect.Parameter.empty:
        return None
    config = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
    try:
        return TypeAdapter(annotation, config=config)
    except (PydanticSchemaGenerationError, PydanticUserError, TypeError):
        return None


@cache
def parameters(target: Callable[..., Any]) -> tuple[Parameters, bool]:
    """Returns a target's parameters with annotations, and whether it takes any keyword; cached.

    If a constructor passes `**parts` on, the parameters of its base classes are added.
    """
    if not inspect.isclass(target):
        return function_parameters(target)
    found: Parameters = {}
    for owner in target.__mro__:
        if "__init__" not in vars(owner):
            continue
        if owner is getattr(sys.modules.get("torch.nn"), "Module", None):
            return found, False  # it takes any keyword, to refuse it
        own, passes_on = function_parameters(vars(owner)["__init__"])
        found = own | found
        if not passes_on:
            return found, False
    return found, True


def function_parameters(function: Callable[..., Any]) -> tuple[Parameters, bool]:
    """Returns a function's keyword-capable parameters but `self`, and whether it has `**kwargs`.

    Omits positional-only ones. All annotations are empty if one of them cannot be resolved. A
    builtin without a signature counts as `**kwargs` only.
    """
    try:
        signature = inspect.signature(function)
    except ValueError:  # some builtins have none
        return {}, True
    # The commands import pydantic's types under TYPE_CHECKING only, for a fast start.
    known = vars(types) | getattr(inspect.unwrap(function), "__globals__", {})
    try:
        hints = get_type_hints(function, known, include_extras=True)
    except (NameError, TypeError):  # names imported under TYPE_CHECKING only
        hints = {}
    kinds = signature.parameters.values()
    named = {p.name: hints.get(p.name, p.empty) for p in kinds if p.kind.name in NAMED}
    named.pop("self", None)
    return named, any(p.kind is p.VAR_KEYWORD for p in kinds)


NAMED = {"POSITIONAL_OR_KEYWORD", "KEYWORD_ONLY"}


def optional_settings(target: Callable[..., Any]) -> set[str]:
    """Returns the names of a target's settings with a default, except those told by the data.

    Parameters without a default are in the configuration already, or given by the caller.
    """
    functions = [target]
    if inspect.isclass(target):
        functions = [
            vars(owner)["__init__"] for owner in target.__mro__ if "__init__" in vars(owner)
        ]
    return set(parameters(target)[0]) & set().union(*map(optional_parameters, functions)) - TOLD


def optional_parameters(function: Callable[..., Any]) -> set[str]:
    """Returns the names of a function's parameters that have a default."""
    try:
        named = inspect.signature(function).parameters.values()
    except ValueError:  # some builtins have none
        return set()
    return {parameter.name for parameter in named if parameter.default is not parameter.empty}


def has_target(value: Any) -> bool:
    """Returns whether there is a `_target_` in nested dicts or lists, at any depth."""
    if isinstance(value, Mapping):
        return "_target_" in value or any(map(has_target, value.values()))
    return isinstance(value, list) and any(map(has_target, value))


def shown_value(value: Any) -> str:
    """Returns a value as the command line writes it, cut to 40 characters."""
    text = value if isinstance(value, str) else json.dumps(value).replace("Infinity", "inf")
    return text if len(text) <= 40 else f"{text[:37]}..."
