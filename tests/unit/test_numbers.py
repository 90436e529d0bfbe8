"""Tests of vectors and signals as data: files, refusals, units, splits and batches."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from vaelab.data import Numbers, Signals, Vectors
from vaelab.data.description import coarse_numbers_warning, describe, far_numbers_warning
from vaelab.errors import UserError
from vaelab.evaluation.given_images import read_given_numbers
from vaelab.observations import Units, x_text
from vaelab.runs import validation


@pytest.fixture
def write(tmp_path):
    """(text or arrays, suffix): writes a file and returns its path."""

    def write_file(content, suffix=".csv"):
        path = tmp_path / f"mine{suffix}"
        if isinstance(content, str):
            path.write_text(content)
        elif isinstance(content, dict):
            np.savez(path, **content)
        else:
            np.save(path, content)
        return str(path)

    return write_file


def module(source, **settings):
    """A data module of a source, by default real, standardised, in batches of 4."""
    usual = {"pixels": "real", "standardize": True, "batch_size": 4, "val_size": 5, "test_size": 5}
    return Numbers(source=source, **usual | settings)


def random_table(count=40):
    """CSV of three columns of numbers and one of texts, and the numbers [N, 3]."""
    values = np.random.default_rng(0).normal(size=(count, 3)) * [1e4, 1, 1e-3] + [5e4, 0, 7]
    kinds = ["red", "green", "blue"]
    rows = [
        f"{','.join(map(repr, map(float, row)))},{kinds[i % 3]}" for i, row in enumerate(values)
    ]
    return "\n".join(["a,b,c,kind", *rows]) + "\n", values


def test_table_gives_columns_and_label_as_they_are(write):
    text, values = random_table()
    splits = Vectors(write(text), label="kind")()
    assert splits.x_names == ("a", "b", "c")
    assert splits.class_names == ("blue", "green", "red")
    assert splits.train_labels[:3].tolist() == [2, 1, 0]
    assert_close(splits.train_images, torch.from_numpy(values))


def test_named_columns_are_no_part_of_x_but_to_condition_on(write):
    text, values = random_table()
    source = Vectors(write(text), columns=["b", "kind"])
    splits = source()
    assert splits.x_names == ("a", "c")
    assert_close(splits.train_images, torch.from_numpy(values[:, [0, 2]]))
    assert_close(splits.column("b").train[:, 0], torch.from_numpy(values[:, 1]).float())
    assert splits.column("kind").names == ("blue", "green", "red")
    data = module(source, columns=["b", "kind"], numbers=True)
    assert data.shapes["numbers"] == {"b": 1}
    assert data.shapes["classes"] == {"kind": 3}
    assert "b from -1.25907 to 2.00239; kind of 3 classes" in "; ".join(describe(data))


def test_column_named_label_is_the_label(write):
    text = random_table()[0].replace("kind", "label")
    splits = Vectors(write(text), columns="label")()
    assert splits.class_names == ("blue", "green", "red")
    assert splits.x_names == ("a", "b", "c")


def test_column_of_truth_is_a_class_and_with_one_number_is_of_numbers(write):
    path = write("a,on,age\n1,True,30\n2,False,?\n")
    assert Vectors(path, columns="on", leave_out="age")().column("on").names == ("False", "True")
    with pytest.raises(UserError, match=r"column age, row 2: is '\?'; missing values"):
        Vectors(path, columns=["age", "on"])()


@pytest.mark.parametrize("suffix", [".tsv", ".parquet"])
def test_other_tables_give_the_same(write, tmp_path, suffix):
    import pandas as pd

    text, _ = random_table()
    expected = Vectors(write(text), label="kind", leave_out="b", columns=["c"])()
    table, path = pd.read_csv(tmp_path / "mine.csv"), tmp_path / f"other{suffix}"
    if suffix == ".tsv":
        table.to_csv(path, sep="\t", index=False)
    else:
        table.to_parquet(path)
    found = Vectors(str(path), label="kind", leave_out="b", columns=["c"])()
    assert found.x_names == expected.x_names == ("a",)
    assert torch.equal(found.column("c").train, expected.column("c").train)
    assert torch.equal(found.train_images, expected.train_images)
    assert torch.equal(found.train_labels, expected.train_labels)


def test_numbers_are_standardised_by_training_rows_alone(write):
    text, values = random_table()
    data = module(Vectors(write(text), label="kind"))
    rows = data.rows["train"]
    assert len(rows) == 30
    train = values[rows.numpy()]
    assert_close(data.units.mean, tuple(train.mean(0).tolist()))
    assert_close(data.units.scale, tuple(train.std(0).tolist()))
    x = data.splits.train_images
    assert x.dtype == torch.float32
    assert_close(x[rows].mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    assert_close(x[rows].std(0, correction=0), torch.ones(3))
    units = Units.from_plain(data.shapes["units"])
    assert_close(units.restore(x, 1), torch.from_numpy(values), rtol=1e-6, atol=0)


def test_signals_are_standardised_by_channel_not_by_step(write):
    signals = np.random.default_rng(0).normal(size=(40, 2, 9)) * [[3.0], [0.1]] + np.arange(9)
    data = module(Signals(write(signals, ".npy")))
    x = data.splits.train_images[data.rows["train"]]
    assert data.shapes["x_shape"] == (2, 9)
    assert_close(x.mean((0, 2)), torch.zeros(2), atol=1e-5, rtol=0)
    assert_close(x.std((0, 2), correction=0), torch.ones(2))
    assert x.mean(0).std() > 0.5  # the slope over the steps stays
    restored = Units.from_plain(data.shapes["units"]).restore(data.splits.train_images, 2)
    assert_close(restored, torch.from_numpy(signals), rtol=1e-5, atol=1e-5)


def test_large_offset_loses_no_digits(write):
    """Dates in seconds: in single precision a step would be 128 of them."""
    seconds = 1.7e9 + np.arange(40.0)
    data = module(Vectors(write(np.stack([seconds, seconds % 7], 1), ".npy")))
    x = data.splits.train_images[:, 0]
    assert len(x.unique()) == 40
    assert_close(
        data.units.restore(data.splits.train_images, 1)[:, 0].numpy(),
        seconds,
        rtol=1e-12,
        atol=1e-4,
    )


def test_constant_column_stays_zero_and_is_said(write):
    values = np.random.default_rng(0).normal(size=(40, 3))
    values[:, 1] = 0.1
    data = module(Vectors(write(values, ".npy")))
    assert_close(data.splits.train_images[:, 1], torch.zeros(40), atol=1e-6, rtol=0)
    assert "the same in all training rows: 1" in describe(data)[0]


def test_numbers_as_they_are_without_standardisation(write):
    values = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    data = module(Vectors(write(values, ".npy")), standardize=False)
    assert torch.equal(data.splits.train_images, torch.from_numpy(values))
    assert data.units == Units.default(3)
    assert "as in the file" in describe(data)[0]


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_batches_of_real_numbers_are_the_rows(write, part):
    values = np.random.default_rng(0).normal(size=(40, 3))
    data = module(Vectors(write(values, ".npy")))
    x = torch.cat([x for x, _ in data.batches(part)])
    expected = data.splits.train_images[data.rows[part]]
    assert x.dtype == torch.float32
    known = {tuple(row) for row in expected.tolist()}
    assert {tuple(row) for row in x.tolist()} <= known
    if part != "train":
        assert torch.equal(x, expected)
        assert torch.equal(torch.cat([*data.grey_images(part)]), expected)


@pytest.mark.parametrize("kind", [np.bool_, np.uint8, np.int64, np.float32])
def test_binary_numbers_are_never_redrawn(write, kind):
    bits = np.random.default_rng(0).integers(0, 2, (40, 6)).astype(kind)
    data = module(Vectors(write(bits, ".npy")), pixels="binary")
    loader = data.batches("train")
    for epoch in range(3):
        loader.set_epoch(epoch)
        rows = {tuple(row) for x, _ in loader for row in x.tolist()}
        assert rows <= {tuple(map(float, row)) for row in bits.tolist()}
    (val,) = [x for x, _ in data.batches("val")][:1]
    assert torch.equal(val, torch.from_numpy(bits.astype(np.float32))[data.rows["val"][:4]])


def test_array_file_has_labels_columns_and_parts_of_its_own(write):
    random = np.random.default_rng(0)
    arrays = {
        "train_x": random.normal(size=(20, 3)), "train_labels": np.arange(20) % 2,
        "train_dose": random.normal(size=20), "val_x": random.normal(size=(6, 3)),
        "val_labels": np.arange(6) % 2, "val_dose": random.normal(size=6), "notes": np.zeros(1),
    }  # fmt: skip
    data = module(Vectors(write(arrays, ".npz")), test_size=4)
    assert data.sizes == {"train": 16, "val": 6, "test": 4}
    assert data.splits.num_classes == 2
    assert data.splits.column_names == ["label", "dose"]
    assert data.splits.unused == ("notes",)
    expected = (arrays["val_x"] - data.units.mean) / data.units.scale
    assert_close(data.splits.val_images, torch.from_numpy(expected).float())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label": "kid"}, "data.source.label=kid: is no column; did you mean kind?"),
        ({"leave_out": ["x"]}, "data.source.leave_out=x: is no column"),
        ({"leave_out": ["a", "b", "c"], "label": "kind"}, "no column of numbers left"),
        ({"label": "a", "leave_out": ["kind"]}, "labels are 0, 1, ... or texts"),
        ({"columns": ["agee"]}, "data.columns=agee: is no column; possible are a, b, c, kind"),
        ({"columns": "kind", "label": "kind"}, "data.columns=kind: is data.source.label; "),
        ({"columns": "kind", "leave_out": "kind"}, "data.columns=kind: is in data.source.leave_ou"),
        ({"columns": ["a", "b", "c"], "leave_out": "kind"}, "no column of numbers left"),
    ],
)
def test_bad_choice_of_columns_is_refused(write, settings, message):
    with pytest.raises(UserError, match=message):
        Vectors(write(random_table()[0]), **settings)()


NAN = np.where(np.eye(3, 5) > 0, np.nan, 1.0)
BAD_ARRAYS = [
    (Vectors, np.zeros(5), r"should be \(N, D\)"),
    (Vectors, np.zeros((5, 2, 9)), r"data=signals takes \(N, C, L\)"),
    (Vectors, np.zeros((5, 1, 8, 8)), r"data=arrays takes images \(N, C, H, W\)"),
    (Signals, np.zeros((5, 1, 8, 8)), r"data=arrays takes images \(N, C, H, W\)"),
    (Signals, np.zeros((5, 1, 8, 8, 8)), "volumes are not taken"),
    (Vectors, np.zeros((5, 1, 8, 8, 8)), "volumes are not taken"),
    (Signals, np.zeros((5, 100, 2)), "of 2 steps; signals are"),
    (Signals, np.zeros((5, 7)), "at least 8 steps"),
    (Vectors, np.zeros((5, 0)), r"should be \(N, D\)"),
    (Vectors, np.zeros((0, 4)), "train_x is empty"),
    (Vectors, NAN, r"train_x\[0\], column 0, is nan"),
    (Vectors, np.full((3, 2), 1j), "complex128"),
    (Vectors, np.full((3, 2), "a"), "should be numbers"),
    (Vectors, {"a": np.zeros((3, 2)), "b": np.zeros(3)}, "should have train_x"),
    (Vectors, {"train_x": np.zeros((3, 2)), "val_x": np.zeros((3, 4))}, r"val_x are \(4,\)"),
]


@pytest.mark.parametrize(("source", "content", "message"), BAD_ARRAYS)
def test_bad_array_is_refused(write, source, content, message):
    path = write(content, ".npz" if isinstance(content, dict) else ".npy")
    with pytest.raises(UserError, match=message):
        source(path)()


@pytest.mark.parametrize(
    ("values", "settings", "message"),
    [
        ([[0.0, 1], [1, 0.5]] * 20, {"pixels": "binary"}, "1 of train row 1: 0.5 is not 0 or 1"),
        ([[0, 1], [1, 2]] * 20, {"pixels": "binary"}, "2 is not 0 or 1"),
        ([[0, 1e300], [1, 2]] * 20, {"standardize": False}, "too large for single precision"),
        ([[0, 1e300], [1, -1e300]] * 20, {}, "1 has numbers up to 1e\\+300, too large"),
        ([[0, 1.0]] * 10, {}, "leave nothing of the 10 vectors"),
    ],
)
def test_numbers_that_do_not_fit_settings_are_refused(write, values, settings, message):
    with pytest.raises(UserError, match=message):
        _ = module(Vectors(write(np.array(values), ".npy")), **settings).splits


@pytest.mark.parametrize("pixels", ["grey", "dequantized", "nothing"])
def test_kinds_of_pixels_are_no_kinds_of_numbers(pixels):
    node = {"_target_": "vaelab.data.Numbers", "pixels": pixels}
    with pytest.raises(UserError, match="should be 'real' or 'binary'"):
        validation.check_node(node, "data")
    node = {"_target_": "vaelab.data.Images", "pixels": "real"}
    with pytest.raises(UserError, match="should be 'binary', 'dequantized' or 'grey'"):
        validation.check_node(node, "data")


def test_words_for_shapes():
    shapes = [(1, 28, 28), (2, 100), (5,)]
    expected = ["28 x 28 x 1 images", "signals of 100 steps x 2", "vectors of 5 numbers"]
    assert list(map(x_text, shapes)) == expected


def test_units_of_a_finished_run_are_kept_when_the_file_has_grown(write):
    data = module(Vectors(write(random_table()[0]), label="kind"))
    units, before = data.units, data.splits.train_images
    path = write(random_table(60)[0])
    assert module(Vectors(path, label="kind")).units != units
    grown = module(Vectors(path, label="kind"))
    grown.units = units
    assert_close(grown.splits.train_images[:1], before[:1])
    other = module(Vectors(path, label="kind", leave_out=["c"]))
    other.units = units
    with pytest.raises(UserError, match="are a, b, and the model was trained with a, b, c"):
        _ = other.splits


@pytest.mark.parametrize("kind", [Vectors, Signals])
def test_numbers_far_from_all_others_are_warned_of(write, kind):
    shape = (4000, 3, 8) if kind is Signals else (4000, 3)
    values = np.random.default_rng(0).normal(size=shape)
    plain = module(kind(write(values, ".npy")))
    assert far_numbers_warning(plain) is None
    train = int(plain.rows["train"][0])
    values[train, 1] = 999_999
    data = module(kind(write(values, ".npy")))
    said = far_numbers_warning(data)
    assert said.startswith(f"numbers of {data.units.names[1]} (")
    assert data.units.names[0] not in said
    assert far_numbers_warning(module(kind(write(values, ".npy")), standardize=False)) is None


@pytest.mark.parametrize(
    ("times", "said"),
    [
        (1.7e9 + 6 * np.arange(40), "time (by 128)"),
        (np.full(40, 1.7e9 + 1), "time (by 128)"),  # all that is left of some seconds
        (1.7e9 + 1e6 * np.arange(40), None),
        (2000 + np.arange(40), None),
        (np.full(40, 0.5), None),
    ],
)
def test_numbers_to_condition_on_that_lose_their_differences_are_warned_of(write, times, said):
    rows = [f"{i % 7},{i % 3},{time!r}" for i, time in enumerate(map(float, times))]
    source = Vectors(write("\n".join(["a,b,time", *rows]) + "\n"), columns="time")
    found = coarse_numbers_warning(module(source, columns=["time"], numbers=True))
    assert (said is None) == (found is None)
    assert said is None or said in found


def test_numbers_that_are_near_each_other_are_described_with_all_their_digits(write):
    rows = [f"{i % 7},{i % 3},{1.7e9 + 100 * i!r}" for i in range(40)]
    source = Vectors(write("\n".join(["a,b,time", *rows]) + "\n"), columns="time")
    said = "; ".join(describe(module(source, columns=["time"], numbers=True)))
    assert "time from 1.7e+09 to 1.700003" in said


@pytest.mark.parametrize("kind", [Vectors, Signals])
@pytest.mark.parametrize("dtype", [">f4", ">f8", ">i2", "<f8", np.longdouble, bool])
def test_numbers_of_any_byte_order_are_read(write, kind, dtype):
    shape = (6, 5, 8)[: 3 if kind is Signals else 2]
    values = np.arange(np.prod(shape)).reshape(shape) % 2
    found = kind(write({"train_x": values.astype(dtype)}, ".npz"))().train_images
    assert torch.equal(found.double(), torch.from_numpy(values).double())


def test_column_of_numbers_and_texts_is_told_how_to_become_a_condition(write):
    text = "a,size\n1,S\n2,42\n3,M\n"
    with pytest.raises(UserError, match=r"column size, row 1: 'S' is no number; numbers and texts"):
        Vectors(write(text), columns="size")()
    with pytest.raises(UserError, match=r"'S' is no number; .*, and data.columns=size makes it"):
        Vectors(write(text))()


@pytest.mark.parametrize(
    "text",
    [
        "a;b\n1.234;1,5\n1.234.567;2,5\n3.400;3,25\n",
        'a,b\n"1,234",1.5\n"2,345",2.5\n',
        "a;b\n1,023;1,5\n2,5;1.000,5\n",
    ],
)
def test_file_to_encode_has_the_numbers_of_the_same_file_in_training(write, text):
    splits = Vectors(path := write(text))()
    units = Units(splits.x_names, (0.0, 0.0), (1.0, 1.0))
    given = read_given_numbers(Path(path), units).images
    assert_close(torch.as_tensor(given), splits.train_images)


def test_file_to_encode_with_two_decimal_marks_is_refused(write):
    units = Units(("a", "b"), (0.0, 0.0), (1.0, 1.0))
    with pytest.raises(UserError, match="decimal comma, and there are decimal points in another"):
        read_given_numbers(Path(write("a;b\n1.234;1,5\n3.400;3,25\n")), units)
