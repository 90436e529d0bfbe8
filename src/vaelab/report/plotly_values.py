"""Numbers and texts in the form that plotly.js reads: JSON lists, base64 arrays, HTML."""

import base64
import html
from collections.abc import Sequence
from typing import Any

import numpy as np


def packed_array(values: np.ndarray) -> dict[str, str]:
    """Returns a plotly.js array of base64 from int32 or float32; KeyError for another type.

    That is a third of the size of its digits.
    """
    kind = {"int32": "i4", "float32": "f4"}[values.dtype.name]
    return {"dtype": kind, "bdata": base64.b64encode(values.tobytes()).decode()}


def json_numbers(values: Any) -> list[float | None]:
    """Returns numbers as a list in which infinite and NaN ones, unknown to JSON, are None."""
    return [float(value) if np.isfinite(value) else None for value in values]


def escaped_texts(values: Sequence[str]) -> list[str]:
    """Returns texts with `&`, `<` and `>` escaped for HTML."""
    return [escaped_html(value) for value in values]


def escaped_html(text: str) -> str:
    """Returns a text with `&`, `<`, `>` escaped, since plotly.js reads HTML in labels."""
    return html.escape(str(text), quote=False)
