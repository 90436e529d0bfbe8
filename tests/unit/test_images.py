"""The data module `Images`, against numbered images: splits, noise, shapes and batch sizes."""

from functools import partial

import pytest
import torch
from support.numbered_images import (
    build_data_module,
    flatten,
    image_numbers,
    numbered_images,
    numbered_splits,
)

from vaelab.data import Images
from vaelab.data.description import describe
from vaelab.data.splits import Splits
from vaelab.errors import UserError
from vaelab.evaluation import Subject
from vaelab.evaluation.subject import regroup


def test_parts_are_disjoint_and_cover_all_images():
    data = build_data_module(test_size=5)
    parts = [
        flatten(image_numbers(loader))
        for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    ]
    assert [len(part) for part in parts] == [32, 10, 5]  # the incomplete last batch of 3 is dropped
    assert len(set(flatten(parts))) == 47
    rows = [set(part.tolist()) for part in data.rows.values()]
    assert [len(part) for part in rows] == [35, 10, 5]
    assert set.union(*rows) == set(range(50))
    assert data.sizes == {"train": 35, "val": 10, "test": 5}


def test_split_depends_only_on_split_seed():
    fixed = build_data_module(test_size=5)
    for same in (
        build_data_module(test_size=5, seed=1),
        build_data_module(test_size=5, batch_size=3),
    ):
        assert all(torch.equal(same.rows[name], fixed.rows[name]) for name in fixed.rows)
    other = build_data_module(test_size=5, split_seed=1)
    assert not any(torch.equal(other.rows[name], fixed.rows[name]) for name in fixed.rows)


def test_source_test_part_is_the_test_set():
    data = build_data_module(partial(numbered_splits, test=12), test_size=5)
    assert flatten(image_numbers(data.test_dataloader())) == list(range(50, 62))
    assert data.sizes == {"train": 40, "val": 10, "test": 12}
    assert set(flatten(image_numbers(data.val_dataloader()))) <= set(range(50))
    labels = torch.cat([y for _, y in data.test_dataloader()]).argmax(1)
    assert torch.equal(labels, torch.arange(50, 62) % 5)


def epoch_images(loader, epoch=0):
    """Returns x of all batches of an epoch, concatenated to [N, C, H, W]."""
    loader.set_epoch(epoch)
    return torch.cat([x for x, _ in loader])


@pytest.mark.parametrize("part", ["val", "test"])
@pytest.mark.parametrize("test", [0, 12])
def test_binary_evaluation_pixels_ignore_batch_size_epoch_and_seed(part, test):
    source = partial(numbered_splits, test=test)
    torch.manual_seed(0)
    fixed = epoch_images(getattr(build_data_module(source, pixels="binary", test_size=5), part))
    assert fixed.unique().tolist() == [0, 1]
    for changes in ({"batch_size": 3}, {"batch_size": 35}, {"seed": 1}):
        torch.manual_seed(0)  # the same images
        loader = getattr(build_data_module(source, pixels="binary", test_size=5, **changes), part)
        for epoch in (0, 1):
            assert torch.equal(epoch_images(loader, epoch), fixed)


def test_split_seed_changes_binary_evaluation_pixels():
    torch.manual_seed(0)
    first = numbered_splits()
    bits = [
        epoch_images(build_data_module(lambda: first, pixels="binary", split_seed=s).val)
        for s in (0, 1)
    ]
    assert not torch.equal(*bits)


def test_evaluation_pixel_mean_is_the_grey_level():
    grey = Splits(*(torch.full((3000, 1, 8, 8), 51).byte(), torch.zeros(3000).long()) * 2, 1)
    for loader in (
        build_data_module(lambda: grey, pixels="binary").val,
        build_data_module(lambda: grey).test,
    ):
        assert epoch_images(loader).mean().item() == pytest.approx(0.2, abs=0.05)


def test_binary_training_pixels_are_redrawn_each_epoch():
    same = Splits(*(torch.full((50, 1, 8, 8), 128).byte(), torch.zeros(50).long()) * 2, 1)
    loader = build_data_module(lambda: same, pixels="binary").train
    first = epoch_images(loader)
    assert not torch.equal(epoch_images(loader, epoch=1), first)
    assert torch.equal(epoch_images(loader, epoch=0), first)


@pytest.mark.parametrize("pixels", ["dequantized", "grey"])
@pytest.mark.parametrize("part", ["val", "test"])
def test_evaluation_noise_ignores_epoch_and_seed(part, pixels):
    first = numbered_splits(test=12)
    loader = getattr(build_data_module(lambda: first, pixels=pixels), part)
    fixed = epoch_images(loader)
    assert torch.equal(epoch_images(loader, epoch=1), fixed)
    assert torch.equal(
        epoch_images(getattr(build_data_module(lambda: first, pixels=pixels, seed=1), part)), fixed
    )


def test_shapes_lists_image_shape_classes_and_pixels():
    expected = {"x_shape": (1, 8, 8), "classes": {"label": 5}, "numbers": {}, "pixels": "binary"}
    expected["class_names"] = {"label": ["0", "1", "2", "3", "4"]}
    assert build_data_module(pixels="binary").shapes == expected


def test_y_has_width_0_without_labels():
    data = build_data_module(partial(numbered_splits, num_classes=0))
    for loader in (data.train, data.val):
        for x, y in loader:
            assert y.shape == (len(x), 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val_size": 50}, "data.val_size=50"),
        ({"val_size": 30, "test_size": 20}, "data.test_size=20"),
        ({"val_size": 0.6, "test_size": 0.4}, "data.val_size=0.6 and data.test_size=0.4 leave"),
    ],
)
def test_sizes_that_leave_no_training_images_raise(changes, message):
    with pytest.raises(UserError, match=message):
        build_data_module(**changes)


@pytest.mark.parametrize(
    ("count", "val_size", "test_size", "expected"),
    [
        (50, 0.1, 0.2, [35, 5, 10]),
        (50, 0.1, 7, [38, 5, 7]),
        (3, 0.1, 0.1, [1, 1, 1]),
        (1000, 0.125, 0, [875, 125, 0]),
    ],
)
def test_val_size_and_test_size_accept_fractions(count, val_size, test_size, expected):
    settings = {"batch_size": 1, "pixels": "grey", "val_size": val_size, "test_size": test_size}
    data = Images(source=partial(numbered_splits, count=count), **settings)
    assert [len(rows) for rows in data.rows.values()] == expected


@pytest.mark.parametrize(("world_size", "size"), [(1, 40), (3, 39)])
def test_train_batch_size_is_limited_by_training_images(world_size, size):
    data = build_data_module(batch_size=300)
    assert data.train_batch_size(world_size) == size
    assert [len(part) for part in image_numbers(data.train)] == [40]
    assert "all 40 images in a batch, for data.batch_size=300" in describe(data)
    with pytest.raises(UserError, match="40 training images are too few for 100 devices"):
        data.check_batch_size(100)


def splits_with_val_part(count=30, val=8, test=6, **changes):
    """Returns a data set of numbered images with a validation part; `test=0`: no test part."""
    images, labels = numbered_images(count + val + test), torch.arange(count + val + test) % 5
    x, y = images.split([count, val, test]), labels.split([count, val, test])
    own = {"val_images": x[1], "val_labels": y[1]}
    return Splits(x[0], y[0], x[2], y[2], num_classes=5, **own, **changes)


@pytest.mark.parametrize("test", [0, 6])
def test_source_validation_part_is_the_validation_set(test):
    data = build_data_module(partial(splits_with_val_part, test=test), test_size=5, val_size=0.5)
    assert flatten(image_numbers(data.val_dataloader())) == list(range(30, 38))
    assert data.sizes == {"train": 30 if test else 25, "val": 8, "test": 6 if test else 5}
    labels = torch.cat([y for _, y in data.val_dataloader()]).argmax(1)
    assert torch.equal(labels, torch.arange(30, 38) % 5)
    assert any("val_images" in said for said in describe(data))
    subject = Subject(None, data, None, track=lambda parts, _: parts)
    assert sum(len(x) for x, _ in subject.iterate_all_images("all")) == 38 + test


@pytest.mark.parametrize("pixels", ["binary", "dequantized"])
def test_test_batches_of_any_size_have_the_same_pixels(pixels):
    data = build_data_module(partial(splits_with_val_part, test=230), pixels=pixels)
    subject = Subject(None, data, None, track=lambda parts, _: parts)
    loader = data.batches("test")
    loader.batch_size = 100
    x, y = map(torch.cat, zip(*loader, strict=True))
    assert torch.equal(subject.test_labels, y)
    for size, count in ((100, None), (10, None), (250, None), (64, 130), (7, 1)):
        found = list(subject.test_batches("test", size, count))
        assert all(len(part) == size for part, _ in found[:-1])
        assert len(found) == -(-len(x[:count]) // size)
        assert torch.equal(torch.cat([part for part, _ in found]), x[:count])
        assert torch.equal(torch.cat([part for _, part in found]), y[:count])


@pytest.mark.parametrize(("size", "wanted"), [(20, 1), (100, 1), (250, 3)])
def test_regroup_takes_batches_as_they_are_needed(size, wanted):
    taken = []
    batches = ((taken.append(i) or torch.full((100, 2), i), torch.zeros(100, 1)) for i in range(9))
    x, y = next(regroup(batches, size, 900))
    assert len(x) == len(y) == size
    assert len(taken) == wanted
