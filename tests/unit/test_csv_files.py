"""Tests of CSV files as people have them: read right, or refused with row, column and cell."""

import numpy as np
import pytest
import torch

from vaelab.data import Vectors
from vaelab.errors import UserError

EXPECTED = [[1.5, 1000.0], [-2.25, 3.0], [0.5, 12345.75]]


def read(tmp_path, content, suffix=".csv", **settings):
    """Writes text or bytes to a table, and returns its data set."""
    path = tmp_path / f"mine{suffix}"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Vectors(str(path), **settings)()


GOOD = {
    "plain": "a,b\n1.5,1000\n-2.25,3\n0.5,12345.75\n",
    "semicolons": "a;b\n1.5;1000\n-2.25;3\n0.5;12345.75\n",
    "semicolons and decimal commas": "a;b\n1,5;1000\n-2,25;3\n0,5;12345,75\n",
    "decimal commas in quotes": 'a,b\n"1,5",1000\n"-2,25",3\n"0,5","12345,75"\n',
    "tabs": "a\tb\n1.5\t1000\n-2.25\t3\n0.5\t12345.75\n",
    "tabs and decimal commas": "a\tb\n1,5\t1000\n-2,25\t3\n0,5\t12345,75\n",
    "bars": "a|b\n1.5|1000\n-2.25|3\n0.5|12345.75\n",
    "byte order mark": "\ufeffa,b\n1.5,1000\n-2.25,3\n0.5,12345.75\n",
    "UTF-16, as Excel's text": "a\tb\n1.5\t1000\n-2.25\t3\n0.5\t12345.75\n".encode("utf-16"),
    "spaces after commas": "a, b\n1.5, 1000\n-2.25, 3\n0.5, 12345.75\n",
    "spaces before commas": "a ,b\n1.5 ,1000 \n-2.25 ,3\n0.5 ,12345.75\n",
    "line ends of Windows": "a,b\r\n1.5,1000\r\n-2.25,3\r\n0.5,12345.75\r\n",
    "thousands with commas": 'a,b\n1.5,"1,000"\n-2.25,3\n0.5,"12,345.75"\n',
    "thousands with points": "a;b\n1,5;1.000\n-2,25;3\n0,5;12.345,75\n",
    "thousands with spaces": "a;b\n1,5;1 000\n-2,25;3\n0,5;12\u202f345,75\n",
    "thousands with apostrophes": "a;b\n1.5;1'000\n-2.25;3\n0.5;12'345.75\n",
    "separators at all ends": "a,b,\n1.5,1000,\n-2.25,3,\n0.5,12345.75,\n",
    "separators at the ends of rows": "a,b\n1.5,1000,\n-2.25,3,\n0.5,12345.75,\n",
    "comments above": "# by us\n#\na,b\n1.5,1000\n-2.25,3\n0.5,12345.75\n",
    "names in a comment, as numpy's": "# a,b\n1.5,1000\n-2.25,3\n0.5,12345.75\n",
    "sep= as for Excel": "sep=;\na;b\n1,5;1000\n-2,25;3\n0,5;12345,75\n",
    "empty lines": "\na,b\n\n1.5,1000\n-2.25,3\n\n0.5,12345.75\n\n",
    "quotes": '"a","b"\n"1.5","1000"\n"-2.25","3"\n"0.5","12345.75"\n',
    "exponents": "a,b\n15e-1,1E3\n-2.25,3e0\n.5,12345.75\n",
    "percent signs": "a,b\n1.5%,1000\n-2.25 %,3\n0.5%,12345.75\n",
}


@pytest.mark.parametrize("kind", GOOD)
def test_table_is_read_right(tmp_path, kind):
    splits = read(tmp_path, GOOD[kind])
    assert splits.x_names == ("a", "b")
    assert torch.equal(splits.train_images, torch.tensor(EXPECTED, dtype=torch.float64))


def test_semicolons_in_a_tsv_are_found(tmp_path):
    splits = read(tmp_path, GOOD["semicolons"], ".tsv")
    assert splits.train_images.tolist() == EXPECTED
    assert splits.remarks == ("cells between semicolons",)


def test_what_is_no_usual_csv_is_said(tmp_path):
    remarks = read(tmp_path, GOOD["semicolons and decimal commas"]).remarks
    assert remarks == ("cells between semicolons", "numbers with decimal commas")
    assert read(tmp_path, GOOD["plain"]).remarks == ()


def test_letters_of_windows_are_read_and_said(tmp_path):
    content = "Größe;Höhe;Ort\n1,5;2;Köln\n3,25;4;Bonn\n".encode("cp1252")
    splits = read(tmp_path, content, label="Ort")
    assert splits.x_names == ("Größe", "Höhe")
    assert splits.class_names == ("Bonn", "Köln")
    assert "letters as of Windows (cp1252), for they are not UTF-8" in splits.remarks


def test_truth_is_one_and_zero(tmp_path):
    for true, false in (("TRUE", "FALSE"), ("true", "false"), ("True", "False")):
        splits = read(tmp_path, f"a,b\n{true},1\n{false},2\n")
        assert splits.train_images.tolist() == [[1, 1], [0, 2]]


@pytest.mark.parametrize("content", ["a\n1\n2\n", "a\n1.5\n2.5"])
def test_one_column_is_a_table(tmp_path, content):
    assert read(tmp_path, content).train_images.shape == (2, 1)


def test_one_row_is_a_table(tmp_path):
    assert read(tmp_path, "a;b\n1,5;2\n").train_images.tolist() == [[1.5, 2]]


def test_counted_names_and_years_are_names(tmp_path):
    assert read(tmp_path, "0,1,2\n5,6,7\n").x_names == ("0", "1", "2")
    assert read(tmp_path, "1,2\n5,6\n").x_names == ("1", "2")
    splits = read(tmp_path, "city,2019,2020,2021\nRome,5,6,7\n", label="city")
    assert splits.x_names == ("2019", "2020", "2021")
    assert read(tmp_path, "0,1,2\n5,6,7\n", leave_out=1).x_names == ("0", "2")


def test_first_column_that_counts_the_rows_is_left_out_and_said(tmp_path):
    for start in (0, 1):
        splits = read(tmp_path, f",a,b\n{start},5,6\n{start + 1},7,8\n")
        assert splits.x_names == ("a", "b")
        assert splits.remarks == ("the first column counts the rows, and is left out",)


def test_file_of_many_rows_with_a_late_decimal_comma(tmp_path):
    rows = "".join(f"{i};{i}\n" for i in range(5000))
    splits = read(tmp_path, f"a;b\n{rows}1,5;2\n")
    assert splits.train_images[-1].tolist() == [1.5, 2]


BAD = {
    "a,b\n1,2\n3,Paris\n": "column b, row 2: 'Paris' is no number; data.source.leave_out=b leaves",
    "a,b\n1,2\n3,\n": "column b, row 2: is empty; missing values are not taken: fill it",
    "a,b\n1,2\nnan,4\n": "column a, row 2: is 'nan'; missing values",
    "a,b\n1,NA\n2,?\n": "column b, row 1: is 'NA', and 1 more of this column are missing",
    "a,b\n1,2\n?,4\n": "column a, row 2: is '?'; missing values",
    "a,b\n1,2\n3\n": "column b, row 2: is empty",
    "a,b\n1,2\n3,inf\n": "column b, row 2: is inf; infinite numbers are not taken",
    "a,b\nTRUE,2\n?,2\n": "column a, row 2: is '?'",
    "a,b\nyes,2\nno,2\n": "column a, row 1: 'yes' is no number",
    "a,b\n12%,2\n3,2\n": "column a, row 1: '12%' is no number",
    "a,b\n$5,2\n$7,2\n": "column a, row 1: '$5' is no number",
    "when,b\n2020-01-01,2\n": "column when, row 1: '2020-01-01' is no number",
    "a,b\n1,2\n# end,\n": "column a, row 2: '# end' is no number",
    "1.5,2\n3,4\n": "the first line should be the names of the columns, and is 1.5,2",
    "1,5;2\n3;4\n": "the first line should be the names of the columns, and is 1,5;2",
    "5.1,3.5,setosa\n4.9,3.0,setosa\n": "the first line should be the names of the columns, and",
    "5,1,1,1,2\n5,4,4,5,7\n": "should be the names of the columns, and is 5,1,1,1,...; write them",
    "a,a\n1,2\n": "two columns are called 'a'",
    ",b\n5,2\n7,3\n": "column 1 has no name; give it one",
    ",a,\n1,2,\n1,3,\n": "column 1 has no name",
    "a,,b\n0,2,3\n": "column 2 has no name",
    "a,b,\n1,2,\n1,2,3\n": "row 2 has 3 cells, the last '3', and there are 2 names",
    "a,b\n1,2,3\n": "row 1 has 3 cells, the last '3', and there are 2 names; a cell that",
    "a,b\n1,2\n1,2,3\n": "row 2 has 3 cells, the last '3', and there are 2 names",
    "a,b\n1,5,2,5\n": 'row 1 has 4 cells, the last \'5\', and there are 2 names; a cell that has a '
    'comma in it goes in quotes, as "1,5"',
    'a;b\n"1,234";2\n"5,678";3\n': "column a, row 1: '1,234' may be of thousands or have d",
    "a;b\n1,5;2.5\n3,5;4.5\n": "column a, row 1: '1,5' has a decimal comma, and there a",
    'a;b\n"1,5";"1,234.5"\n': "'1,5' has a decimal comma, and there are decimal points in colu",
    "a;b\n1,5;1.234\n2,5;2.345\n": "'1,5' has a decimal comma, and there are decimal points",
    "a,${oc.env:HOME}\n1,2\n": "rename it",
    '"a\nb",c\n1,2\n': "is broken",
    "a,b\n": "has no numbers",
    "# nothing\n": "is empty",
    "": "is empty",
    'a,b\n"1,2\n3,4\n': "damaged, or no .csv file",
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BAD.items())
def test_bad_table_is_refused_with_row_and_column(tmp_path, text, message):
    with pytest.raises(UserError) as caught:
        read(tmp_path, text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "mine.csv" in str(caught.value)


def test_other_files_are_no_text(tmp_path):
    for content in (b"PK\x03\x04\x00\x00\x00", np.arange(99.0).tobytes()):
        with pytest.raises(UserError, match=r"mine.csv: is no text; save it as CSV in UTF-8"):
            read(tmp_path, content)
    with pytest.raises(UserError, match="is no text in UTF-8"):
        read(tmp_path, b"a,b\n\x81,\x8d\n")


def test_missing_label_is_refused_and_a_mark_is_a_label(tmp_path):
    with pytest.raises(UserError, match="column s, row 2: is 'NA', a missing label"):
        read(tmp_path, "a,s\n1,x\n2,NA\n", label="s")
    with pytest.raises(UserError, match="column s, row 2: the label is missing"):
        read(tmp_path, "a,s\n1,x\n2,\n", label="s")
    assert read(tmp_path, "a,s\n1,+\n2,-\n", label="s").class_names == ("+", "-")
