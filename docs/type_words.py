"""Annotations of parameters in plain words."""

import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from vaelab.commands.help_text import value_text

WORDS = {int: "whole number", float: "number", bool: "true or false", str: "text"}
WORDS |= {type(None): "null", Any: "", dict: "dictionary", list: "list"}


def type_text(annotation):
    """Returns an annotation in plain words, such as `whole number > 0`, maybe empty."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        limits = " ".join(filter(None, (limit_text(mark) for mark in parts[1:])))
        return f"{type_text(parts[0])} {limits}".strip()
    if origin is Literal:
        return ", ".join(f"`{value_text(value)}`" for value in parts)
    if origin in (Union, types.UnionType):
        words = list(dict.fromkeys(filter(None, map(type_text, parts))))
        return " or ".join(words)
    if origin in (list, tuple):
        inner = type_text(parts[0]) if parts else ""
        inner = f"({inner})" if " or " in inner else inner
        return f"list of {inner}" if inner else "list"
    if origin is dict:
        return "dictionary"
    return WORDS.get(annotation, "")


def limit_text(mark):
    """Returns the limits in the metadata of an annotation, such as `>= 0`; empty without any."""
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    marks = [mark, *getattr(mark, "metadata", ())]
    found = [
        f"{sign} {getattr(each, name):g}"
        for each in marks
        for name, sign in signs.items()
        if isinstance(getattr(each, name, None), (int, float))
    ]
    return ", ".join(found)
