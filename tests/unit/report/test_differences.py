"""Tests of `vaelab.report.differences`: types and texts of settings, against exact values."""

import pandas as pd
import pytest

from vaelab.report import differences


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (["1", "10", None], "Int64", [1, 10, None]),
        (["1", "0.5", "1e-3"], "float64", [1.0, 0.5, 0.001]),
        (["true", "false"], "boolean", [True, False]),
        (["1", "x"], "str", ["1", "x"]),
        (["[8,8]", "[16]"], "str", ["[8,8]", "[16]"]),
        ([None, None], "str", [None, None]),
    ],
)
def test_typed_column_parses_numbers_and_booleans(values, kind, expected):
    column = differences.typed_column(values)
    assert column.dtype == kind
    assert [None if pd.isna(value) else value for value in column] == expected


def test_short_names_and_level_labels_stay_distinct():
    assert differences.short_names(["model.beta", "seed"]) == {"model.beta": "beta", "seed": "seed"}
    both = ["model.encoder.hidden", "model.decoder.hidden"]
    assert differences.short_names(both) == {both[0]: both[0], both[1]: both[1]}
    assert differences.level_labels([0.12341, 0.12342]) == ["0.12341", "0.12342"]
    assert differences.level_labels([0.5, 12345678]) == ["0.5", "12345678"]
