"""Numbers as people write them: decimal points or commas, thousands apart, percent signs."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np

from vaelab.errors import UserError

Decimal = Literal[".", ","]

MISSING_WORDS = frozenset(
    ("", "na", "n/a", "#na", "#n/a", "<na>", "nan", "-nan", "none", "null", "nil", "missing")
)
"""Texts, in small letters, that stand for what is not known."""
MISSING_MARKS = frozenset(("?", "-", "--", ".", "*"))
"""The same of numbers; as labels these could be anything."""
SPACES = " '\u2019\u00a0\u202f"
GROUPED = {
    ".": re.compile(rf"[+-]?\d{{1,3}}(?:(?:,\d{{3}})+|(?:[{SPACES}]\d{{3}})+)(?:\.\d+)?"),
    ",": re.compile(rf"[+-]?\d{{1,3}}(?:(?:\.\d{{3}})+|(?:[{SPACES}]\d{{3}})+)(?:,\d+)?"),
}
"""A number whose thousands are set apart, by the mark before its decimals."""
BOTH = re.compile(r"[+-]?[\d.,]*\d[\d.,]*(?:[eE][+-]?\d+)?")
TRUTH = {"true": 1.0, "false": 0.0}


def is_number_text(text: str) -> bool:
    """Returns whether a text is a number with a decimal point or comma; without thousands."""
    try:
        float(text.replace(",", ".", 1))
    except ValueError:
        return False
    return True


def is_missing_number(text: str) -> bool:
    """Returns whether a text stands for a number that is not known, as `NA` or `?`."""
    return is_missing_label(text) or text.strip() in MISSING_MARKS


def is_missing_label(text: str) -> bool:
    """Returns whether a text stands for a label that is not known, as `NA`."""
    return text.strip().lower() in MISSING_WORDS


def decimal_mark(text: str) -> Decimal | None:
    """Returns the mark before the decimals of a number, None if it could be either or has none.

    `1,5` and `1.234,5` have a comma, `1.5`, `1,234.5` and `1,234,567` a point. `1,234` and `1.234`
    could have either.
    """
    text = text.strip().rstrip("%").strip()
    if not BOTH.fullmatch(text):
        return None
    points, commas = text.count("."), text.count(",")
    if points and commas:
        last = "." if text.rindex(".") > text.rindex(",") else ","
        return last if text.count(last) == 1 else None  # type: ignore[return-value]
    if points > 1 or commas > 1:
        return "," if points else "."
    if not points and not commas:
        return None
    mark: Decimal = "." if points else ","
    whole, _, rest = text.lstrip("+-").partition(mark)
    could_be_thousands = len(rest) == 3 and 1 <= len(whole) <= 3 and whole[0] != "0"
    return None if could_be_thousands else mark


def find_decimal(columns: Mapping[str, Any], has_points: bool) -> Decimal:
    """Returns the mark before the decimals of all numbers in columns of texts.

    Args:
        columns: Series of pandas of texts, by name.
        has_points: Whether numbers in other columns have decimal points.

    Raises:
        UserError: If some have points and some commas, or a comma may be either.
    """
    found: dict[str, str] = {".": "another column"} if has_points else {}
    doubtful = ""
    for name, column in columns.items():
        for text in column.dropna().unique():
            if not isinstance(text, str) or ("," not in text and "." not in text):
                continue
            mark = decimal_mark(text)
            if mark in found or (mark is None and doubtful):
                continue  # a place is looked for but once
            if mark or ("," in text and BOTH.fullmatch(text.strip())):
                row = int((column == text).to_numpy().argmax())
                where = f"column {name}, row {row + 1}: {text!r}"
                if mark:
                    found[mark] = where
                else:
                    doubtful = where
    if len(found) > 1:
        raise UserError(
            f"{found[',']} has a decimal comma, and there are decimal points in {found['.']}; "
            "write all of them with points"
        )
    if doubtful and not found:
        raise UserError(
            f"{doubtful} may be of thousands or have decimals; write it without a comma, as 1234 "
            "or 1.234"
        )
    return "," if "," in found else "."


def convert_texts(texts: Any, decimal: Decimal) -> np.ndarray:
    """Returns numbers float64 [N] of a series of texts; NaN for what is none.

    If all end with a percent sign, these are taken off; `true` and `false`, if there is nothing
    else, are 1 and 0.

    Args:
        texts: Series of pandas without missing values.
        decimal: The mark before the decimals.
    """
    import pandas as pd  # slow to import

    plain = texts.str.strip()
    truth = plain.str.lower().map(TRUTH)
    if truth.notna().all():
        return truth.to_numpy(np.float64)
    if plain.str.endswith("%").all():
        plain = plain.str.removesuffix("%").str.strip()
    grouped = plain.str.fullmatch(GROUPED[decimal]).to_numpy(bool)
    if grouped.any():
        other = "," if decimal == "." else "."
        apart = plain[grouped].str.replace(rf"[{other}{SPACES}]", "", regex=True)
        plain = plain.mask(grouped, apart)
    if decimal == ",":
        plain = plain.mask(plain.str.contains(".", regex=False), "").str.replace(",", ".")
    return pd.to_numeric(plain, errors="coerce").to_numpy(np.float64)


def has_numbers(texts: Iterable[Any]) -> bool:
    """Returns whether one of the texts is a number, so that all of them should be."""
    return any(isinstance(text, str) and is_number_text(text.strip().rstrip("%")) for text in texts)
