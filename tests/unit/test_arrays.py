"""Contents of data set files, by `read_splits`: layouts, types, columns, classes and ranges.

Read arrays are compared with those that were written; invalid ones, with the error message.
"""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.array_files import (
    FILE_FORMATS,
    assert_splits_equal,
    black_images,
    changed_arrays,
    read_error_message,
    save_arrays,
    two_level_images,
    valid_arrays,
)
from support.image_folders import noise

from vaelab.data import Arrays, Images
from vaelab.data.arrays import build_splits
from vaelab.data.description import describe, rare_classes_warning
from vaelab.data.store import read_splits
from vaelab.errors import UserError


@FILE_FORMATS
@pytest.mark.parametrize("shape", [(8, 9), (1, 8, 9), (3, 9, 8), (4, 10, 10)])
def test_read_splits_returns_images_channels_first(tmp_path, suffix, shape):
    arrays = valid_arrays(shape=shape)
    found = read_splits(save_arrays(tmp_path / f"a{suffix}", arrays))
    channels_first = shape if len(shape) == 3 else (1, *shape)
    assert found.train_images.shape == (20, *channels_first)
    assert found.test_images.shape == (6, *channels_first)
    assert found.train_images.dtype == found.test_images.dtype == torch.uint8
    assert found.train_labels.dtype == found.test_labels.dtype == torch.int64
    assert found.num_classes == 4
    assert_splits_equal(found, arrays)


@FILE_FORMATS
def test_read_splits_maps_booleans_to_0_and_255(tmp_path, suffix):
    arrays = valid_arrays()
    arrays["train_images"] = arrays["train_images"] > 127
    arrays["test_images"] = arrays["test_images"] > 127
    found = read_splits(save_arrays(tmp_path / f"a{suffix}", arrays))
    assert found.train_images.dtype == torch.uint8
    assert found.train_images.unique().tolist() == [0, 255]
    assert torch.equal(found.train_images == 255, torch.from_numpy(arrays["train_images"]))


@FILE_FORMATS
def test_read_splits_without_labels_has_zero_labels(tmp_path, suffix):
    arrays = {name: array for name, array in valid_arrays().items() if "images" in name}
    found = read_splits(save_arrays(tmp_path / f"a{suffix}", arrays))
    assert found.num_classes == 0
    assert torch.equal(found.train_labels, torch.zeros(20, dtype=torch.int64))
    assert torch.equal(found.test_labels, torch.zeros(6, dtype=torch.int64))
    assert_splits_equal(found, arrays)


@FILE_FORMATS
@pytest.mark.parametrize("labels", [True, False])
def test_read_splits_without_test_part_has_empty_test_arrays(tmp_path, suffix, labels):
    names = ["train_images", "train_labels"][: 1 + labels]
    arrays = {name: array for name, array in valid_arrays().items() if name in names}
    found = read_splits(save_arrays(tmp_path / f"a{suffix}", arrays))
    assert found.test_images.shape == (0, 1, 8, 9)
    assert len(found.test_labels) == 0
    assert found.num_classes == (4 if labels else 0)
    assert_splits_equal(found, arrays)


@FILE_FORMATS
@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"])
def test_read_splits_accepts_labels_of_any_integer_type(tmp_path, suffix, kind):
    arrays = valid_arrays()
    expected = torch.from_numpy(arrays["train_labels"])
    arrays["train_labels"] = arrays["train_labels"].astype(kind)
    assert torch.equal(
        read_splits(save_arrays(tmp_path / f"a{suffix}", arrays)).train_labels, expected
    )


def test_num_classes_adds_classes_absent_from_the_labels(tmp_path):
    path = save_arrays(tmp_path / "a.npz", valid_arrays())
    assert Arrays(str(path))().num_classes == 4
    assert Arrays(str(path), num_classes=7)().num_classes == 7


def angle_columns(train, test):
    """Returns the arrays of a further column, named angle."""
    return {"train_angle": train, "test_angle": test}


INVALID_ARRAYS = {  # changes of `valid_arrays`, and the pattern of the error message
    "no images": ({"train_images": None}, "train_images"),
    "complex images": (
        {"train_images": black_images(20, 1, 8, 9, kind=np.complex64)},
        "complex64|C64",
    ),
    "float32 images": (
        {"train_images": two_level_images(0, 0.5, np.float32)},
        r"train_images are float32 from 0 to 0.5; .* data.source.range=\[0,1\]",
    ),
    "float64 test images": (
        {"test_images": two_level_images(-1, 1, np.float64, 6)},
        r"test_images are float64 from -1 to 1; .* data.source.range=\[-1,1\]",
    ),
    "float images up to 255": (
        {"train_images": two_level_images(0.5, 255, np.float32)},
        r"range=\[0,255\]",
    ),
    "float images of unusual range": (
        {"train_images": two_level_images(-3.5, 4.25, np.float32)},
        r"range=\[-3.5,4.25\]",
    ),
    "uint8 images of 0 and 1": (
        {"train_images": two_level_images(0, 1, np.uint8)},
        r"train_images are uint8 from 0 to 1: nearly black.* data.source.range=\[0,1\], or .*255\]",
    ),
    "int64 images of 0 and 1": (
        {"train_images": two_level_images(0, 1, np.int64)},
        r"range=\[0,1\]",
    ),
    "4-bit images": ({"train_images": two_level_images(0, 15, np.uint8)}, r"range=\[0,15\]"),
    "16-bit images": (
        {"train_images": two_level_images(0, 60_000, np.uint16)},
        r"range=\[0,65535\]",
    ),
    "12-bit images": ({"train_images": two_level_images(0, 4000, np.int32)}, r"range=\[0,4095\]"),
    "signed images": (
        {"train_images": two_level_images(-128, 127, np.int16)},
        r"range=\[-128,127\]",
    ),
    "dark test images": (
        {"test_images": two_level_images(0, 1, np.uint8, 6)},
        "test_images are uint8 from 0",
    ),
    "black images": ({"train_images": black_images(20, 1, 8, 9)}, "train_images are all 0"),
    "NaN pixels": (
        {
            "train_images": np.where(np.arange(20) == 7, np.nan, 1.0)[:, None, None]
            + black_images(20, 8, 9)
        },
        r"train_images\[7\] is not finite",
    ),
    "2-D images": ({"train_images": black_images(20, 72)}, r"\(20, 72\)"),
    "5-D images": ({"train_images": black_images(20, 1, 1, 8, 9)}, "shape"),
    "volumes": ({"train_images": black_images(20, 28, 28, 28)}, "volumes are not read; .*=NCHW"),
    "float images of half the range": (
        {"train_images": two_level_images(-0.5, 0.5, np.float32)},
        r"range=\[-0.5,0.5\], or data.source.range=\[-1,1\]",
    ),
    "dark floats": (
        {"train_images": two_level_images(0, 100, np.float32)},
        r": data.source.range=\[0,100\], or data.source.range=\[0,255\]",
    ),
    "7 x 7 images": ({"train_images": black_images(20, 1, 7, 7)}, "too small: 7 x 7"),
    "7 x 28 images": ({"train_images": black_images(20, 7, 28)}, "too small: 7 x 28"),
    "zero channels": ({"train_images": black_images(20, 0, 8, 9)}, "too small"),
    "no training images": ({"train_images": black_images(0, 1, 8, 9)}, "empty"),
    "test images of different size": (
        {"test_images": two_level_images(0, 255, shape=(1, 9, 8))},
        r"\(1, 9, 8\)",
    ),
    "test images in colour": (
        {"test_images": two_level_images(0, 255, shape=(3, 8, 9))},
        r"\(3, 8, 9\)",
    ),
    "negative labels": ({"train_labels": np.arange(20) % 4 - 1}, r"train_labels\[0\] is -1"),
    "huge label": (
        {"train_labels": np.r_[np.zeros(19, np.uint64), np.uint64(2**64 - 1)].astype(np.uint64)},
        r"train_labels\[19\] is 18446744073709551615",
    ),
    "test label absent from training": (
        {"test_labels": np.arange(6)},
        r"test_labels\[4\] is 4, which is none of the classes 0, 1, 2, 3",
    ),
    "too few labels": ({"train_labels": np.arange(19) % 4}, r"\(19,\)"),
    "labels in two columns": ({"train_labels": np.ones((20, 2), int)}, r"\(20, 2\)"),
    "fractional labels": ({"train_labels": np.arange(20) / 2}, r"train_labels\[1\] is 0.5"),
    "NaN labels": ({"train_labels": np.full(20, np.nan)}, r"train_labels\[0\] is nan"),
    "column named label": ({"train_label": np.arange(20)}, "train_labels"),
    "column without test part": (
        {"train_angle": np.zeros(20)},
        "has train_angle and test_images but no test_angle",
    ),
    "column without training part": (
        {"test_angle": np.zeros(6)},
        "has test_angle and train_images but no train_angle",
    ),
    "validation labels without images": (
        {"val_labels": np.zeros(6, int)},
        "has val_labels but no val_images",
    ),
    "test labels without images": ({"test_images": None}, "has test_labels but no test_images"),
    "validation images without labels": (
        {"val_images": two_level_images(0, 255)},
        "has train_labels and val_images but no val_labels",
    ),
    "too few numbers": (angle_columns(np.zeros(19), np.zeros(6)), "train_angle have shape"),
    "numbers of different widths": (
        angle_columns(np.zeros((20, 2)), np.zeros(6)),
        "test_angle are 1 wide",
    ),
    "NaN numbers": (
        angle_columns(np.where(np.arange(20) == 5, np.nan, 0.0), np.zeros(6)),
        r"train_angle\[5\] is nan",
    ),
    "numbers too large": (
        angle_columns(np.zeros((20, 2)), np.eye(6, 2) * 1e300),
        r"test_angle\[0\] is 1e\+300, which is too large for single precision",
    ),
    "float training and integer test column": (
        angle_columns(np.zeros(20), np.zeros(6, int)),
        "test_angle should be .*floats",
    ),
    "test class absent from training": (
        angle_columns(np.zeros(20, int), np.ones(6, int)),
        r"test_angle\[0\] is 1, which is none",
    ),
    "classes in two columns": (
        angle_columns(np.zeros((20, 2), int), np.zeros(6, int)),
        "train_angle have shape",
    ),
    "test images without labels": ({"test_labels": None}, "test_labels"),
    "too many classes": (
        {"train_labels": np.arange(20) * 1000},
        "train_labels are of 20 classes, too many for 20 rows",
    ),
}


@FILE_FORMATS
def test_read_splits_reads_further_columns(tmp_path, suffix):
    classes = angle_columns(np.arange(20) % 3, np.arange(6) % 2)
    numbers = {"train_place": np.linspace(0, 1, 20), "test_place": np.linspace(1, 2, 6)}
    pairs = {"train_pair": np.ones((20, 2), np.float16), "test_pair": np.zeros((6, 2))}
    bits = {"train_smile": np.arange(20) % 2 == 0, "test_smile": np.arange(6) % 2 == 1}
    arrays = changed_arrays(**classes, **numbers, **pairs, **bits)
    found = read_splits(save_arrays(tmp_path / f"a{suffix}", arrays))
    assert sorted(found.column_names) == ["angle", "label", "pair", "place", "smile"]
    columns = {name: found.column(name) for name in found.column_names}
    assert {name: column.classes for name, column in columns.items()} == {
        "angle": 3, "label": 4, "pair": 0, "place": 0, "smile": 2,
    }  # fmt: skip
    assert {name: column.width for name, column in columns.items()} == {
        "angle": 0, "label": 0, "pair": 2, "place": 1, "smile": 0,
    }  # fmt: skip
    assert torch.equal(columns["angle"].train, torch.arange(20) % 3)
    assert torch.equal(columns["smile"].test, torch.tensor([0, 1, 0, 1, 0, 1]))
    assert torch.equal(columns["place"].test, torch.linspace(1, 2, 6)[:, None])
    assert torch.equal(columns["pair"].train, torch.ones(20, 2))


@FILE_FORMATS
@pytest.mark.parametrize("case", INVALID_ARRAYS)
def test_read_splits_rejects_invalid_arrays(tmp_path, suffix, case):
    changes, expected = INVALID_ARRAYS[case]
    path = save_arrays(tmp_path / f"a{suffix}", changed_arrays(**changes))
    with pytest.raises(UserError, match=expected):
        read_splits(path)
    assert "truncated" not in read_error_message(path)


@FILE_FORMATS
def test_read_splits_rejects_labels_beyond_num_classes(tmp_path, suffix):
    message = read_error_message(
        save_arrays(tmp_path / f"a{suffix}", valid_arrays()), num_classes=3
    )
    assert "train_labels[3] is 3, which is none of the classes 0, 1, 2" in message


LABELS = np.arange(20) % 4


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (LABELS, ["0", "1", "2", "3"]),
        (LABELS + 1, ["1", "2", "3", "4"]),
        (np.array([0, 3, 7, 100])[LABELS], ["0", "3", "7", "100"]),
        (LABELS[:, None], ["0", "1", "2", "3"]),
        (np.eye(4)[LABELS], ["0", "1", "2", "3"]),
        (LABELS.astype(np.float32), ["0", "1", "2", "3"]),
        (np.array(["a", "bb", "c c", "d"])[LABELS], ["a", "bb", "c c", "d"]),
        (np.array(["ä", "b", "c", "ö"])[LABELS].astype("U"), ["b", "c", "ä", "ö"]),
        (np.array([b"a", b"bb", b"c", b"d"])[LABELS], ["a", "bb", "c", "d"]),
        (LABELS > 1, ["0", "1"]),
    ],
)
def test_classes_are_the_distinct_training_labels(tmp_path, labels, names):
    arrays = changed_arrays(train_labels=labels, test_labels=labels[:6])
    found = read_splits(save_arrays(tmp_path / "a.npz", arrays))
    assert found.num_classes == len(names)
    assert list(found.class_names) == names
    told = np.array(names)[found.train_labels.numpy()]
    expected = labels.argmax(1) if labels.ndim == 2 and labels.shape[1] > 1 else labels.reshape(-1)
    decoded = (
        expected.astype("U") if expected.dtype.kind in "SU" else expected.astype(int).astype(str)
    )
    assert told.tolist() == decoded.tolist()
    assert torch.equal(found.test_labels, found.train_labels[:6])
    data = Images(source=lambda: found, batch_size=4, val_size=4, pixels="grey")
    assert data.shapes["class_names"] == {"label": names}
    assert f"{len(names)} classes: {', '.join(names)}" in describe(data)


@pytest.mark.parametrize(
    "labels",
    [
        np.array([b"k\xe4se", b"k\xf6nig"] * 10),
        np.array([0x61, 0x110000] * 10, np.uint32).view("<U1"),
        np.array([0x61, 0xD800] * 10, np.uint32).view("<U1"),
        np.array([0x61, 0xD800] * 10, ">u4").view(">U1"),
    ],
)
def test_read_splits_rejects_labels_that_are_no_text(tmp_path, labels):
    path = save_arrays(
        tmp_path / "a.npz", changed_arrays(train_labels=labels, test_labels=labels[:6])
    )
    assert "is no text" in read_error_message(path)


def test_text_and_integer_labels_cannot_be_mixed(tmp_path):
    arrays = changed_arrays(train_labels=LABELS, test_labels=LABELS[:6].astype(str))
    assert "test_labels are <U" in read_error_message(save_arrays(tmp_path / "a.npz", arrays))


@FILE_FORMATS
@pytest.mark.parametrize(
    ("span", "kind"),
    [
        ((0, 1), np.float32),
        ((0, 1), np.float64),
        ((-1, 1), np.float32),
        ((0, 255), np.float32),
        ((0, 65535), np.uint16),
        ((0, 65280), np.int32),
    ],
)
def test_range_rescales_pixels_to_bytes_exactly(tmp_path, suffix, span, kind):
    arrays = valid_arrays()
    black, white = span
    for name in ("train_images", "test_images"):
        values = black + arrays[name].astype(np.float64) * (white - black) / 255
        arrays[name] = values.astype(kind)
    path = save_arrays(tmp_path / f"a{suffix}", arrays)
    assert_splits_equal(Arrays(str(path), range=span)(), valid_arrays())
    data = Images(source=Arrays(str(path), range=span), batch_size=4, val_size=4, pixels="grey")
    low, high = (extreme(valid_arrays()["train_images"]) for extreme in (np.min, np.max))
    assert describe(data)[0] == f"pixels from {low} to {high}, which were {black} to {white}"


def test_range_0_to_255_accepts_dark_images(tmp_path):
    path = save_arrays(tmp_path / "a.npz", {"train_images": two_level_images(0, 100)})
    assert Arrays(str(path), range=(0, 255))().train_images.max() == 100


@pytest.mark.parametrize(("span", "said"), [((1, 0), "should rise"), ((0, 1), r"\[10\] reaches")])
def test_invalid_or_exceeded_range_raises(tmp_path, span, said):
    path = save_arrays(tmp_path / "a.npz", {"train_images": two_level_images(0, 100)})
    with pytest.raises(UserError, match=said):
        Arrays(str(path), range=span)()


def test_read_splits_takes_int64_pixels_up_to_255_as_bytes(tmp_path):
    arrays = {"train_images": valid_arrays()["train_images"].astype(np.int64)}
    assert torch.equal(
        read_splits(save_arrays(tmp_path / "a.npz", arrays)).train_images,
        torch.from_numpy(valid_arrays()["train_images"]),
    )


@FILE_FORMATS
def test_read_splits_reads_a_validation_part(tmp_path, suffix):
    more = {"val_images": two_level_images(0, 255, count=8), "val_labels": np.arange(8) % 4}
    columns = {
        f"{part}_place": np.full(n, 0.5) for part, n in (("train", 20), ("val", 8), ("test", 6))
    }
    found = read_splits(save_arrays(tmp_path / f"a{suffix}", valid_arrays() | more | columns))
    assert_splits_equal(found, valid_arrays() | more)
    assert found.column("place").val.shape == (8, 1)
    assert found.column("label").val.tolist() == [0, 1, 2, 3] * 2
    assert list(found.parts) == ["train", "val", "test"]


def test_unused_arrays_are_named_in_description(tmp_path):
    found = read_splits(
        save_arrays(tmp_path / "a.npz", valid_arrays() | {"notes": np.zeros(3), "x": np.ones(2)})
    )
    assert found.unused == ("notes", "x")
    data = Images(source=lambda: found, batch_size=4, val_size=4, pixels="grey")
    assert describe(data)[-1] == "not used: notes, x"


def test_description_names_class_counts_and_ranges_of_numbers(tmp_path):
    labels = np.array([0] * 12 + [1] * 7 + [132])
    columns = {"train_radius": np.linspace(-1, 2, 20), "train_kind": np.arange(20) % 3}
    arrays = {"train_images": two_level_images(0, 255), "train_labels": labels, **columns}
    found = read_splits(
        save_arrays(
            tmp_path / "a.npz",
            arrays
            | {"val_images": arrays["train_images"]}
            | {
                "val_labels": labels,
                "val_radius": columns["train_radius"],
                "val_kind": columns["train_kind"],
            },
        )
    )
    data = Images(source=lambda: found, batch_size=4, val_size=1, test_size=0, pixels="grey")
    said = describe(data)
    for words in (
        "pixels from 0 to 255",
        "3 classes: 0, 1, 132",
        "training images of a class from 1 (132) to 12 (0)",
        "radius from -1 to 2",
        "kind of 3 classes",
    ):
        assert words in said
    assert rare_classes_warning(data) == (
        "a class has at most one training image: 132; are the labels right?"
    )


def test_class_whose_single_image_is_held_out_is_rare(tmp_path):
    labels = np.arange(20) % 4
    labels[7] = 77
    arrays = changed_arrays(train_labels=labels, test_images=None, test_labels=None)
    path = save_arrays(tmp_path / "a.npz", arrays)
    for seed in range(4):
        source = Arrays(str(path), num_classes=100)
        data = Images(source=source, batch_size=2, val_size=6, pixels="grey", split_seed=seed)
        assert "one training image: 77; are" in str(rare_classes_warning(data))


def test_description_of_equal_classes(tmp_path):
    found = read_splits(save_arrays(tmp_path / "a.npz", valid_arrays()))
    data = Images(
        source=lambda: replace(found, val_images=found.test_images, val_labels=found.test_labels),
        batch_size=4,
        val_size=4,
        pixels="grey",
    )
    assert "5 training images of each class" in describe(data)
    assert rare_classes_warning(data) is None


def test_error_without_train_images_lists_the_arrays(tmp_path):
    message = read_error_message(
        save_arrays(tmp_path / "a.npz", {"pics": two_level_images(0, 255), "kinds": LABELS})
    )
    assert "has pics uint8 (20, 1, 8, 9), kinds int64 (20,), but should have train" in message


USUAL_NAMES = [
    {"x_train": "train_images", "y_train": "train_labels"}
    | {"x_test": "test_images", "y_test": "test_labels"},
    {"X_train": "train_images", "Y_train": "train_labels"}
    | {"X_valid": "val_images", "Y_valid": "val_labels"},
    {"train_x": "train_images", "train_y": "train_labels"},
    {"images": "train_images", "labels": "train_labels"},
    {"X": "train_images", "y": "train_labels"},
    {"data": "train_images", "target": "train_labels", "notes": "notes"},
    {"train_images": "train_images", "X": "X", "labels": "labels"},
    {"arr_0": "train_images"},
]


@FILE_FORMATS
@pytest.mark.parametrize("names", USUAL_NAMES)
def test_read_splits_takes_usual_names_and_says_so(tmp_path, suffix, names):
    images, labels = valid_arrays()["train_images"], np.arange(20) % 4
    kinds = {"images": images, "labels": labels}
    arrays = {name: kinds.get(new.partition("_")[2], images) for name, new in names.items()}
    found = read_splits(save_arrays(tmp_path / f"a{suffix}", arrays))
    for name, new in names.items():
        if new.startswith(("train_", "val_", "test_")):
            assert np.array_equal(getattr(found, new), arrays[name]), name
    assert found.num_classes == (4 if "train_labels" in names.values() else 0)
    assert set(found.unused) == {name for name, new in names.items() if "_" not in new}
    renamed = {f"{name} as {new}" for name, new in names.items() if new != name}
    told = found.remarks[0].removeprefix("read ").split(", ") if found.remarks else ()
    assert set(told) == renamed


def test_two_arrays_that_may_be_the_images_are_refused(tmp_path):
    images = two_level_images(0, 255)
    path = save_arrays(tmp_path / "a.npz", {"images": images, "X": images})
    assert "has images uint8 (20, 1, 8, 9), X uint8" in read_error_message(path)


def test_error_names_what_was_read_under_another_name(tmp_path):
    arrays = {"X": two_level_images(0, 255), "y": np.arange(19)}
    message = read_error_message(save_arrays(tmp_path / "a.npz", arrays))
    assert "train_labels have shape (19,)" in message
    assert message.endswith("; read X as train_images, y as train_labels")
    assert message.startswith(str(tmp_path))


@FILE_FORMATS
@pytest.mark.parametrize(
    ("shape", "guess"),
    [((9, 8, 1), False), ((9, 8, 3), False), ((10, 10, 7), False), ((12, 10, 9), True)],
)
def test_channels_last_are_moved_and_said_to_be_a_guess(tmp_path, suffix, shape, guess):
    arrays = valid_arrays(shape=shape)
    path = save_arrays(tmp_path / f"a{suffix}", arrays)
    found = read_splits(path)
    for part, images in found.parts.items():
        assert np.array_equal(images.permute(0, 2, 3, 1), arrays[f"{part}_images"])
        assert images.is_contiguous()
    (said,) = found.remarks
    assert "channels last" in said
    assert ("a guess; or data.source.layout=NCHW" in said) == guess
    if guess:
        first = Arrays(str(path), layout="NCHW")()
        assert np.array_equal(first.train_images, arrays["train_images"])
        assert first.remarks == ()


@pytest.mark.parametrize("shape", [(3, 9, 8), (9, 9, 12), (20, 9, 9), (9, 10, 11)])
def test_channels_first_are_left(tmp_path, shape):
    arrays = valid_arrays(shape=shape)
    found = read_splits(save_arrays(tmp_path / "a.npz", arrays))
    assert np.array_equal(found.train_images, arrays["train_images"])
    assert found.remarks == ()


def test_layout_that_is_given_is_taken(tmp_path):
    arrays = valid_arrays(shape=(9, 10, 11))
    path = save_arrays(tmp_path / "a.npz", arrays)
    found = Arrays(str(path), layout="NHWC")().train_images
    assert np.array_equal(found.permute(0, 2, 3, 1), arrays["train_images"])


@FILE_FORMATS
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    ("black", "white"), [(0, 1), (-1, 1), (0, 255)], ids=["[0,1]", "[-1,1]", "[0,255]"]
)
def test_floats_that_leave_no_doubt_are_taken_and_said(tmp_path, suffix, kind, black, white):
    arrays = valid_arrays()
    for part in ("train", "test"):
        levels = arrays[f"{part}_images"].astype(np.float64)
        arrays[f"{part}_images"] = (black + levels * (white - black) / 255).astype(kind)
    found = read_splits(save_arrays(tmp_path / f"a{suffix}", arrays))
    assert_splits_equal(found, valid_arrays())
    (said,) = found.remarks
    assert f"read with {black} as black and {white} as white" in said


REACHES = {  # least and largest pixel, type, and the span or the ranges that are advised
    "ToTensor": (0, 1, "f4", (0, 1)),
    "rounding": (-1e-9, 1 + 1e-9, "f8", (0, 1)),
    "signed": (-1, 1, "f2", (-1, 1)),
    "whole floats": (0, 255, "f4", (0, 255)),
    "digits of scikit-learn": (0, 16, "f8", "[0,16]"),
    "counts": (0, 3, "f4", "[0,3]"),
    "standardised": (-2.913, 3.377, "f8", "[-2.913,3.377]"),
    "ImageNet": (-2.1179, 2.64, "f4", "[-2.118,2.64]"),
    "dark ToTensor": (0, 0.6, "f4", "[0,0.6] [0,1]"),
    "bytes divided twice": (0, 1 / 255, "f8", "[0,0.003922]"),
    "noise": (-1e-9, 1e-9, "f8", "[-1e-09,1e-09]"),
    "centred": (-0.5, 0.5, "f4", "[-0.5,0.5] [-1,1]"),
    "interpolated bytes": (0.3, 254.6, "f4", "[0,254.6] [0,255]"),
    "float16": (0, 1000, "f2", "[0,1000] [0,1023]"),
    "bytes to 16": (0, 16, "u1", "[0,16] [0,255]"),
    "10 bits": (0, 1023, "u2", "[0,1023]"),
    "12 bits": (0, 4095, "i4", "[0,4095]"),
    "12 bits, dark": (0, 3000, "u2", "[0,3000] [0,4095]"),
    "16 bits": (0, 65535, "i8", "[0,65535]"),
    "signed bytes": (-128, 127, "i1", "[-128,127]"),
    "a little negative": (-5, 300, "i4", "[-5,300]"),
}


@pytest.mark.parametrize("case", REACHES)
def test_reach_of_pixels_is_taken_or_advised_so_that_images_fill_it(case):
    low, high, kind, expected = REACHES[case]
    images = two_level_images(low, high, kind)
    if not isinstance(expected, str):
        assert build_splits({"train_images": images}).pixel_range == (0, 255)
        assert build_splits({"train_images": images}).pixel_scale.floats == expected
        return
    with pytest.raises(UserError) as error:
        build_splits({"train_images": images})
    advised = re.findall(r"data\.source\.range=(\[[^\]]*\])", str(error.value))
    assert advised == expected.split()
    span = tuple(json.loads(advised[0]))
    assert build_splits({"train_images": images}, span=span).pixel_range == (0, 255)


@pytest.mark.parametrize("value", [0, 7, 0.5, -1, 300, np.nan])
def test_constant_pixels_are_advised_no_range_that_they_are_outside_of(value):
    images = np.full((20, 8, 8), value)
    with pytest.raises(UserError, match=r"are all|not finite") as error:
        build_splits({"train_images": images})
    assert ("range=[0,255]" in str(error.value)) == (value in (0, 7))


def test_advised_range_is_that_of_all_parts():
    arrays = {
        "train_images": two_level_images(-3, 3, np.float32),
        "test_images": two_level_images(-2, 3.5, np.float32),
    }
    with pytest.raises(UserError, match=r"range=\[-3,3.5\]"):
        build_splits(arrays)
    assert build_splits(arrays, span=(-3, 3.5)).test_images.max() == 255


def test_range_of_floats_is_that_of_training_for_all_parts(tmp_path):
    arrays = changed_arrays(
        train_images=two_level_images(0, 1, np.float32),
        test_images=two_level_images(0, 0.2, np.float32, 6),
    )
    found = read_splits(save_arrays(tmp_path / "a.npz", arrays))
    assert found.test_images.max() == 51
    arrays["test_images"] = two_level_images(-1, 1, np.float32, 6)
    assert "test_images[0] reaches from -1" in read_error_message(
        save_arrays(tmp_path / "b.npz", arrays)
    )


def test_medmnist_file_is_read_as_it_is(tmp_path):
    random = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 30), ("val", 8), ("test", 9)):
        arrays[f"{part}_images"] = random.integers(0, 256, (count, 28, 28, 3), np.uint8)
        arrays[f"{part}_labels"] = (np.arange(count) % 4)[:, None].astype(np.uint8)
    found = read_splits(save_arrays(tmp_path / "pathmnist.npz", arrays))
    assert list(found.parts) == ["train", "val", "test"]
    assert found.train_images.shape == (30, 3, 28, 28)
    assert found.num_classes == 4
    assert np.array_equal(found.val_images.permute(0, 2, 3, 1), arrays["val_images"])
    assert found.test_labels.tolist() == arrays["test_labels"][:, 0].tolist()


@pytest.mark.parametrize("labels", [[2, 0, 1, 0], ["bag", "shirt", "hat", "shirt"]])
def test_class_names_give_classes_their_order(labels):
    names = np.array(["shirt", "hat", "bag", "shoe"])
    images = noise(0, (4, 8, 8))
    sizes = np.array([1, 0, 1, 1])
    splits = build_splits(
        {
            "train_images": images, "train_labels": np.array(labels), "class_names": names,
            "train_size": sizes, "class_names_size": np.array(["small", "large"]),
        }
    )  # fmt: skip
    assert splits.class_names == tuple(names)
    assert splits.num_classes == 4
    assert splits.train_labels.tolist() == [2, 0, 1, 0]
    assert splits.columns["size"].names == ("small", "large")
    assert splits.columns["size"].train.tolist() == sizes.tolist()
    assert splits.unused == ()


@pytest.mark.parametrize("names", [["a", "b"], ["a", "a", "b"], [0, 1, 2], [["a", "b", "c"]]])
def test_class_names_that_do_not_fit_are_not_used(names):
    images = noise(0, (3, 8, 8))
    arrays = {"train_images": images, "train_labels": np.arange(3), "class_names": np.array(names)}
    splits = build_splits(arrays)
    assert splits.class_names == ("0", "1", "2")
    assert splits.unused == ("class_names",)


@pytest.mark.parametrize("text", ["", "nan", "<NA>"])
def test_missing_label_of_an_array_is_refused(text):
    images = noise(0, (3, 8, 8))
    with pytest.raises(UserError, match=rf"train_labels\[1\] is '{text}', a missing label"):
        build_splits({"train_images": images, "train_labels": np.array(["a", text, "b"])})
