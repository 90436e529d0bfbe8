"""Tables for spreadsheets, which compute a cell that begins like a formula."""

from typing import Any

import pandas as pd

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""Beginnings of a cell that a spreadsheet computes instead of showing it."""


def without_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """Returns a copy of a table in which a `'` is put before texts that a spreadsheet would run.

    See `FORMULA`; numbers are not texts, and stay.
    """

    def quoted(value: Any) -> Any:
        """Returns a text that begins like a formula with `'` before it; any other value as is."""
        return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value

    found = table.rename(columns=quoted)
    for name in found.select_dtypes(["object", "string"]):
        found[name] = found[name].map(quoted)
    return found
