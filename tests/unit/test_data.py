import errno
import gzip
import json
import math
import multiprocessing
import os
import time
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from scipy.stats import chisquare
from support.numbered_images import flat, module, numbered, numbers, splits
from torchvision import datasets

from vaelab.data import Arrays, Digits, Images, TorchvisionDataset, store
from vaelab.data.batches import Batches
from vaelab.data.pixels import binarize, draw, random_below_255
from vaelab.data.store import Splits, load_or_create, read_splits
from vaelab.errors import UserError
from vaelab.evaluation import Subject
from vaelab.randomness import seeded_generator

GREYS = torch.arange(256).byte()


# Pixels.


def drawn(kind, copies, seed=0):
    """X of every grey level, [copies, 256]."""
    images = GREYS.expand(copies, 256).contiguous()
    return draw(images, kind, torch.Generator().manual_seed(seed))


def test_binary_pixels_are_coins_of_their_grey_level():
    copies = 20_000
    x = drawn("binary", copies)
    assert x.dtype == torch.float32
    assert x.unique().tolist() == [0, 1]
    assert not x[:, 0].any()
    assert x[:, 255].all()
    chance = GREYS / 255
    error = (chance * (1 - chance) / copies).sqrt()
    assert ((x.mean(0) - chance).abs() <= 5 * error).all()
    pairs = torch.cov(x[:, 100:150].T)  # of neighbours, which are independent
    assert pairs.fill_diagonal_(0).abs().max() < 5 * 0.25 / math.sqrt(copies)


def test_dequantized_pixels_stay_in_their_bins():
    copies = 20_000
    x = drawn("dequantized", copies)
    assert x.dtype == torch.float32
    assert (x >= 0).all()
    assert (x < 1).all()
    assert (x >= GREYS / 256).all()
    assert (x <= (GREYS + 1.0) / 256).all()  # the edge itself, where rounding reaches it
    within = x * 256 - GREYS
    assert ((within.mean(0) - 0.5).abs() < 5 * math.sqrt(1 / 12 / copies)).all()
    assert (within.var(0) - 1 / 12).abs().max() < 0.01


def test_grey_pixels_are_exact():
    assert torch.equal(drawn("grey", 1)[0], torch.arange(256).float() / 255)


@pytest.mark.parametrize("kind", ["binary", "dequantized", "grey"])
def test_pixels_are_a_function_of_the_generator(kind):
    assert torch.equal(drawn(kind, 3), drawn(kind, 3))
    assert torch.equal(drawn(kind, 3), drawn(kind, 3, seed=1)) is (kind == "grey")


def test_drawing_leaves_the_images():
    images = GREYS.clone()
    for kind in ("binary", "dequantized", "grey"):
        draw(images, kind, torch.Generator())
    assert torch.equal(images, GREYS)


# Batches. The first pixel of an image is its number.


def batches(count=10, **changes):
    settings = {"pixels": "grey", "batch_size": 4, "seed": 0, "shuffle": True} | changes
    images = numbered(count, (1, 2, 2))
    labels = torch.eye(3)[torch.arange(count) % 3]
    return Batches(images, labels, torch.arange(count), **settings)


@pytest.fixture(params=[1, 2, 1000])
def together(request, monkeypatch):
    """Batches of four of these images that are drawn at once."""
    monkeypatch.setattr("vaelab.data.batches.DRAWN", request.param * 16)


def test_order_is_a_function_of_seed_and_epoch():
    loader, again = batches(), batches()
    seen = []
    for epoch in range(4):
        loader.set_epoch(epoch)
        seen.append(numbers(loader))
    for epoch in reversed(range(4)):
        again.set_epoch(epoch)
        assert numbers(again) == seen[epoch]
        assert numbers(again) == seen[epoch]
    assert len({str(order) for order in seen}) == 4
    assert numbers(batches(seed=1)) != seen[0]


@pytest.mark.usefixtures("together")
def test_noise_is_a_function_of_seed_epoch_and_batch():
    loader = batches(count=8, pixels="dequantized", batch_size=2)
    loader.images.fill_(7)  # so that nothing but the noise can differ
    first = torch.stack([x for x, _ in loader])
    assert torch.equal(torch.stack([x for x, _ in loader]), first)
    assert len(first.flatten(1).unique(dim=0)) == len(first)
    loader.set_epoch(1)
    assert not torch.equal(torch.stack([x for x, _ in loader]), first)
    loader.set_epoch(0)
    loader.seed = 1
    assert not torch.equal(torch.stack([x for x, _ in loader]), first)


def test_the_epoch_may_be_told_after_iter():
    loader, other = batches(), batches()
    other.set_epoch(3)
    iterator = iter(loader)
    loader.set_epoch(3)
    assert numbers(iterator) == numbers(other)


@pytest.mark.usefixtures("together")
def test_every_epoch_has_each_image_once():
    loader = batches(count=12)
    orders = []
    for epoch in range(3):
        loader.set_epoch(epoch)
        orders.append(flat(numbers(loader)))
        assert sorted(orders[-1]) == list(range(12))


@pytest.mark.usefixtures("together")
def test_a_ragged_batch_is_kept_in_evaluation_and_left_out_of_training():
    assert len(batches(shuffle=True)) == 2
    assert [len(part) for part in numbers(batches(shuffle=True))] == [4, 4]
    assert len(set(flat(numbers(batches(shuffle=True))))) == 8
    assert len(batches(shuffle=False)) == 3
    assert numbers(batches(shuffle=False)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert len(batches(count=8, shuffle=False)) == 2


def test_what_is_left_out_differs_from_epoch_to_epoch():
    loader, left_out = batches(), set()
    for epoch in range(30):
        loader.set_epoch(epoch)
        left_out |= set(range(10)) - set(flat(numbers(loader)))
    assert left_out == set(range(10))


def test_rows_choose_the_images():
    loader = Batches(
        numbered(10),
        torch.eye(10),
        torch.tensor([7, 2, 5]),
        pixels="grey",
        batch_size=2,
        seed=0,
        shuffle=False,
    )
    assert numbers(loader) == [[7, 2], [5]]
    loader.shuffle, loader.batch_size = True, 3
    assert sorted(flat(numbers(loader))) == [2, 5, 7]


@pytest.mark.usefixtures("together")
@pytest.mark.parametrize("shuffle", [True, False])
def test_labels_stay_with_their_images(shuffle):
    for x, y in batches(shuffle=shuffle):
        assert x.shape[1:] == (1, 2, 2)
        assert y.dtype == torch.float32
        assert y.sum(1).eq(1).all()
        assert (y.argmax(1) == (x[:, 0, 0, 0] * 255).round() % 3).all()


@pytest.mark.usefixtures("together")
@pytest.mark.parametrize("pixels", ["binary", "dequantized", "grey"])
@pytest.mark.parametrize("count", [10, 12])
def test_the_shares_of_two_processes_are_the_batch_of_one(count, pixels):
    settings = {"count": count, "shuffle": True, "pixels": pixels}
    torch.manual_seed(0)
    alone = batches(**settings)
    shares = []
    for rank in (0, 1):
        torch.manual_seed(0)  # the same images
        shares.append(batches(**settings, rank=rank, world_size=2))
    for loader in (alone, *shares):
        loader.set_epoch(2)
    assert len(alone) == len(shares[0]) == len(shares[1])
    for whole, *parts in zip(alone, *shares, strict=True):
        for i in (0, 1):  # x and y
            assert torch.equal(torch.cat([part[i] for part in parts]), whole[i])


@pytest.mark.usefixtures("together")
@pytest.mark.parametrize("pixels", ["binary", "dequantized", "grey"])
@pytest.mark.parametrize("world_size", [2, 3, 5])
@pytest.mark.parametrize("count", [1, 4, 9, 12, 17])
def test_batches_of_an_evaluation_go_round(count, world_size, pixels):
    settings = {"count": count, "shuffle": False, "pixels": pixels}

    def loader(**share):
        torch.manual_seed(0)  # the same images
        return batches(**settings, **share)

    alone = list(loader())
    shares = [[*loader(rank=rank, world_size=world_size)] for rank in range(world_size)]
    assert {len(share) for share in shares} == {-(-len(alone) // world_size)}
    assert {len(loader(rank=rank, world_size=world_size)) for rank in range(world_size)} == {
        len(shares[0])
    }
    in_turn = [batch for each in zip(*shares, strict=True) for batch in each]
    for (x, y), (x_alone, y_alone) in zip(in_turn, alone, strict=False):
        assert torch.equal(x, x_alone)
        assert torch.equal(y, y_alone)
    for x, y in in_turn[len(alone) :]:
        assert x.shape == (0, 1, 2, 2)
        assert y.shape == (0, 3)


def test_a_resumed_evaluation_has_the_remaining_turns():
    share = {"count": 20, "shuffle": False, "rank": 1, "world_size": 2}
    whole = numbers(batches(**share))
    assert whole == [[4, 5, 6, 7], [12, 13, 14, 15], []]
    for position in range(4):
        loader = batches(**share)
        loader.load_state_dict({"position": position})
        assert numbers(loader) == whole[position:]
        assert numbers(loader) == whole


@pytest.mark.usefixtures("together")
@pytest.mark.parametrize("shuffle", [True, False])
def test_a_resumed_epoch_has_exactly_the_remaining_batches(shuffle):
    settings = {"count": 20, "pixels": "dequantized", "shuffle": shuffle}
    torch.manual_seed(0)
    loader = batches(**settings)
    loader.set_epoch(1)
    whole = list(loader)
    for position in range(len(loader) + 1):
        torch.manual_seed(0)
        resumed = batches(**settings)
        resumed.load_state_dict({"position": position})
        resumed.set_epoch(1)
        rest = list(resumed)
        assert len(rest) == len(whole) - position
        for (x, y), (x_rest, y_rest) in zip(whole[position:], rest, strict=True):
            assert torch.equal(x, x_rest)
            assert torch.equal(y, y_rest)
        assert len(list(resumed)) == len(whole)  # the next epoch is whole


@pytest.mark.usefixtures("together")
def test_the_state_counts_the_batches_handed_out():
    loader = batches(count=12)
    iterator = iter(loader)
    states = [loader.state_dict()]
    for _ in iterator:
        states.append(loader.state_dict())  # noqa: PERF401
    assert states == [{"position": n} for n in range(4)]
    assert loader.state_dict() == {"position": 0}


@pytest.mark.usefixtures("together")
def test_an_epoch_that_was_given_up_leaves_no_trace():
    loader = batches(count=12)
    whole = numbers(loader)
    next(iter(loader))
    assert numbers(loader) == whole
    loader.load_state_dict({"position": 1})
    next(iter(loader))
    assert numbers(loader) == whole


# Images.


def test_parts_are_disjoint_and_cover_all_images():
    data = module(test_size=5)
    parts = [
        flat(numbers(loader))
        for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    ]
    assert [len(part) for part in parts] == [32, 10, 5]  # 35 images to train on, less 3
    assert len(set(flat(parts))) == 47
    rows = [set(part.tolist()) for part in data.rows.values()]
    assert [len(part) for part in rows] == [35, 10, 5]
    assert set.union(*rows) == set(range(50))
    assert data.sizes == {"train": 35, "val": 10, "test": 5}


def test_the_split_is_a_function_of_split_seed():
    fixed = module(test_size=5)
    for same in (module(test_size=5, seed=1), module(test_size=5, batch_size=3)):
        assert all(torch.equal(same.rows[name], fixed.rows[name]) for name in fixed.rows)
    other = module(test_size=5, split_seed=1)
    assert not any(torch.equal(other.rows[name], fixed.rows[name]) for name in fixed.rows)


def test_the_official_test_part_is_the_test_set():
    data = module(partial(splits, test=12), test_size=5)
    assert flat(numbers(data.test_dataloader())) == list(range(50, 62))
    assert data.sizes == {"train": 40, "val": 10, "test": 12}
    assert set(flat(numbers(data.val_dataloader()))) <= set(range(50))
    labels = torch.cat([y for _, y in data.test_dataloader()]).argmax(1)
    assert torch.equal(labels, torch.arange(50, 62) % 5)


def x_of(loader, epoch=0):
    loader.set_epoch(epoch)
    return torch.cat([x for x, _ in loader])


@pytest.mark.parametrize("part", ["val", "test"])
@pytest.mark.parametrize("test", [0, 12])
def test_bits_of_an_evaluation_are_fixed(part, test):
    """Whatever the batch size, the epoch and the seed of training."""
    source = partial(splits, test=test)
    torch.manual_seed(0)
    fixed = x_of(getattr(module(source, pixels="binary", test_size=5), part))
    assert fixed.unique().tolist() == [0, 1]
    for changes in ({"batch_size": 3}, {"batch_size": 35}, {"seed": 1}):
        torch.manual_seed(0)  # the same images
        loader = getattr(module(source, pixels="binary", test_size=5, **changes), part)
        for epoch in (0, 1):
            assert torch.equal(x_of(loader, epoch), fixed)


def test_split_seed_names_the_bits_too():
    torch.manual_seed(0)
    first = splits()
    bits = [x_of(module(lambda: first, pixels="binary", split_seed=s).val) for s in (0, 1)]
    assert not torch.equal(*bits)


def test_bits_of_an_evaluation_are_coins():
    grey = Splits(*(torch.full((3000, 1, 8, 8), 51).byte(), torch.zeros(3000).long()) * 2, 1)
    for loader in (module(lambda: grey, pixels="binary").val, module(lambda: grey).test):
        assert x_of(loader).mean().item() == pytest.approx(0.2, abs=0.05)


def test_bits_in_training_are_redrawn_each_epoch():
    same = Splits(*(torch.full((50, 1, 8, 8), 128).byte(), torch.zeros(50).long()) * 2, 1)
    loader = module(lambda: same, pixels="binary").train
    first = x_of(loader)
    assert not torch.equal(x_of(loader, epoch=1), first)
    assert torch.equal(x_of(loader, epoch=0), first)


@pytest.mark.parametrize("pixels", ["dequantized", "grey"])
@pytest.mark.parametrize("part", ["val", "test"])
def test_noise_of_an_evaluation_is_the_same_in_every_epoch_and_seed(part, pixels):
    first = splits(test=12)
    loader = getattr(module(lambda: first, pixels=pixels), part)
    fixed = x_of(loader)
    assert torch.equal(x_of(loader, epoch=1), fixed)
    assert torch.equal(x_of(getattr(module(lambda: first, pixels=pixels, seed=1), part)), fixed)


def test_shapes_are_what_a_model_must_know():
    expected = {"x_shape": (1, 8, 8), "classes": {"label": 5}, "numbers": {}, "pixels": "binary"}
    expected["class_names"] = {"label": ["0", "1", "2", "3", "4"]}
    assert module(pixels="binary").shapes == expected


def test_images_without_labels_have_labels_of_no_width():
    data = module(partial(splits, num_classes=0))
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
def test_sizes_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        module(**changes)


@pytest.mark.parametrize(
    ("count", "val_size", "test_size", "expected"),
    [
        (50, 0.1, 0.2, [35, 5, 10]),
        (50, 0.1, 7, [38, 5, 7]),
        (3, 0.1, 0.1, [1, 1, 1]),
        (1000, 0.125, 0, [875, 125, 0]),
    ],
)
def test_sizes_may_be_shares(count, val_size, test_size, expected):
    settings = {"batch_size": 1, "pixels": "grey", "val_size": val_size, "test_size": test_size}
    data = Images(source=partial(splits, count=count), **settings)
    assert [len(rows) for rows in data.rows.values()] == expected


@pytest.mark.parametrize(("world_size", "size"), [(1, 40), (3, 39)])
def test_few_images_are_one_batch(world_size, size):
    data = module(batch_size=300)
    assert data.train_batch_size(world_size) == size
    assert [len(part) for part in numbers(data.train)] == [40]
    assert "all 40 images in a batch, for data.batch_size=300" in data.description()
    with pytest.raises(UserError, match="40 training images are too few for 100 devices"):
        data.check_batch_size(100)


def with_parts(count=30, val=8, test=6, **changes):
    """A data set with a validation part of its own, and perhaps a test part."""
    images, labels = numbered(count + val + test), torch.arange(count + val + test) % 5
    x, y = images.split([count, val, test]), labels.split([count, val, test])
    own = {"val_images": x[1], "val_labels": y[1]}
    return Splits(x[0], y[0], x[2], y[2], num_classes=5, **own, **changes)


@pytest.mark.parametrize("test", [0, 6])
def test_a_validation_part_of_its_own_is_the_validation_set(test):
    data = module(partial(with_parts, test=test), test_size=5, val_size=0.5)
    assert flat(numbers(data.val_dataloader())) == list(range(30, 38))
    assert data.sizes == {"train": 30 if test else 25, "val": 8, "test": 6 if test else 5}
    labels = torch.cat([y for _, y in data.val_dataloader()]).argmax(1)
    assert torch.equal(labels, torch.arange(30, 38) % 5)
    assert any("val_images" in said for said in data.description())
    subject = Subject(None, data, None, track=lambda parts, _: parts)
    assert sum(len(x) for x, _ in subject.iterate_all_images("all")) == 38 + test


def test_binarize_is_what_draw_does():
    images = GREYS.repeat(50)
    bits = [
        binarize(images, seeded_generator("a", 1)),
        draw(images, "binary", seeded_generator("a", 1)),
    ]
    assert torch.equal(bits[0].float(), bits[1])
    assert not torch.equal(bits[0], binarize(images, seeded_generator("b", 1)))


@pytest.mark.parametrize("shape", [(1_000_001,), (3, 7), (0,)])
def test_draws_every_integer_below_255_alike_and_no_other(shape):
    drawn = random_below_255(shape, seeded_generator("a", 1))
    assert drawn.shape == shape
    assert drawn.dtype == torch.uint8
    counts = np.bincount(drawn.flatten().numpy(), minlength=256)
    assert counts[255] == 0
    if drawn.numel() > 1e6:
        assert chisquare(counts[:255]).pvalue > 1e-3


# Files.


def good(count=20, test=6, shape=(1, 8, 9)):
    random = np.random.default_rng(0)
    return {
        "train_images": random.integers(0, 256, (count, *shape), dtype=np.uint8),
        "train_labels": np.arange(count) % 4,
        "test_images": random.integers(0, 256, (test, *shape), dtype=np.uint8),
        "test_labels": np.arange(test) % 4,
    }


def save(path, arrays):
    if path.suffix == ".npz":
        np.savez_compressed(path, **arrays)
    else:
        save_file(arrays, path)
    return path


FORMATS = pytest.mark.parametrize("suffix", [".npz", ".safetensors"])


def assert_same(found, arrays):
    for name, array in arrays.items():
        tensor = getattr(found, name)
        assert torch.equal(tensor, torch.from_numpy(array).reshape(tensor.shape)), name


@FORMATS
@pytest.mark.parametrize("shape", [(8, 9), (1, 8, 9), (3, 9, 8), (4, 10, 10)])
def test_reads_images(tmp_path, suffix, shape):
    arrays = good(shape=shape)
    found = read_splits(save(tmp_path / f"a{suffix}", arrays))
    channels_first = shape if len(shape) == 3 else (1, *shape)
    assert found.train_images.shape == (20, *channels_first)
    assert found.test_images.shape == (6, *channels_first)
    assert found.train_images.dtype == found.test_images.dtype == torch.uint8
    assert found.train_labels.dtype == found.test_labels.dtype == torch.int64
    assert found.num_classes == 4
    assert_same(found, arrays)


@FORMATS
def test_reads_black_and_white_images(tmp_path, suffix):
    arrays = good()
    arrays["train_images"] = arrays["train_images"] > 127
    arrays["test_images"] = arrays["test_images"] > 127
    found = read_splits(save(tmp_path / f"a{suffix}", arrays))
    assert found.train_images.dtype == torch.uint8
    assert found.train_images.unique().tolist() == [0, 255]
    assert torch.equal(found.train_images == 255, torch.from_numpy(arrays["train_images"]))


@FORMATS
def test_reads_images_without_labels(tmp_path, suffix):
    arrays = {name: array for name, array in good().items() if "images" in name}
    found = read_splits(save(tmp_path / f"a{suffix}", arrays))
    assert found.num_classes == 0
    assert torch.equal(found.train_labels, torch.zeros(20, dtype=torch.int64))
    assert torch.equal(found.test_labels, torch.zeros(6, dtype=torch.int64))
    assert_same(found, arrays)


@FORMATS
@pytest.mark.parametrize("labels", [True, False])
def test_reads_images_without_a_test_part(tmp_path, suffix, labels):
    names = ["train_images", "train_labels"][: 1 + labels]
    arrays = {name: array for name, array in good().items() if name in names}
    found = read_splits(save(tmp_path / f"a{suffix}", arrays))
    assert found.test_images.shape == (0, 1, 8, 9)
    assert len(found.test_labels) == 0
    assert found.num_classes == (4 if labels else 0)
    assert_same(found, arrays)


@FORMATS
@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"])
def test_reads_labels_of_any_integer(tmp_path, suffix, kind):
    arrays = good()
    expected = torch.from_numpy(arrays["train_labels"])
    arrays["train_labels"] = arrays["train_labels"].astype(kind)
    assert torch.equal(read_splits(save(tmp_path / f"a{suffix}", arrays)).train_labels, expected)


def test_the_user_may_know_of_more_classes(tmp_path):
    path = save(tmp_path / "a.npz", good())
    assert Arrays(str(path))().num_classes == 4
    assert Arrays(str(path), num_classes=7)().num_classes == 7


def changed(**changes):
    arrays = good() | changes
    return {name: array for name, array in arrays.items() if array is not None}


def blank(*shape, kind=np.uint8):
    return np.zeros(shape, kind)


def shades(low, high, kind=np.uint8, count=20, shape=(1, 8, 9)):
    """Images whose pixels reach from one value to another."""
    images = np.full((count, *shape), low, kind)
    images[count // 2 :] = high
    return images


def angles(train, test):
    """A column beside images and labels."""
    return {"train_angle": train, "test_angle": test}


BAD = {
    "no images": ({"train_images": None}, "train_images"),
    "complex images": ({"train_images": blank(20, 1, 8, 9, kind=np.complex64)}, "complex64|C64"),
    "float32 images": (
        {"train_images": shades(0, 1, np.float32)},
        r"train_images are float32 from 0 to 1; .* data.source.range=\[0,1\]",
    ),
    "float64 test images": (
        {"test_images": shades(-1, 1, np.float64, 6)},
        r"test_images are float64 from -1 to 1; .* data.source.range=\[-1,1\]",
    ),
    "float images up to 255": ({"train_images": shades(0, 255, np.float32)}, r"range=\[0,255\]"),
    "float images of no scale": (
        {"train_images": shades(-3.5, 4.25, np.float32)},
        r"range=\[-3.5,4.25\]",
    ),
    "bits in bytes": (
        {"train_images": shades(0, 1, np.uint8)},
        r"train_images are uint8 from 0 to 1: nearly black.* data.source.range=\[0,1\], or .*255\]",
    ),
    "bits in integers": ({"train_images": shades(0, 1, np.int64)}, r"range=\[0,1\]"),
    "sixteen greys": ({"train_images": shades(0, 15, np.uint8)}, r"range=\[0,15\]"),
    "16 bits": ({"train_images": shades(0, 60_000, np.uint16)}, r"range=\[0,65535\]"),
    "12 bits": ({"train_images": shades(0, 4000, np.int32)}, r"range=\[0,4095\]"),
    "signed images": ({"train_images": shades(-128, 127, np.int16)}, r"range=\[-128,127\]"),
    "dark test images": (
        {"test_images": shades(0, 1, np.uint8, 6)},
        "test_images are uint8 from 0",
    ),
    "black images": ({"train_images": blank(20, 1, 8, 9)}, "train_images are all 0"),
    "images that are not finite": (
        {
            "train_images": np.where(np.arange(20) == 7, np.nan, 1.0)[:, None, None]
            + blank(20, 8, 9)
        },
        r"train_images\[7\] is not finite",
    ),
    "2-D images": ({"train_images": blank(20, 72)}, r"\(20, 72\)"),
    "5-D images": ({"train_images": blank(20, 1, 1, 8, 9)}, "shape"),
    "channels last": ({"train_images": blank(20, 28, 28, 3)}, "channels last"),
    "one channel last": ({"train_images": blank(20, 28, 28, 1)}, "channels last"),
    "7 x 7 images": ({"train_images": blank(20, 1, 7, 7)}, "too small: 7 x 7"),
    "7 x 28 images": ({"train_images": blank(20, 7, 28)}, "too small: 7 x 28"),
    "no channels": ({"train_images": blank(20, 0, 8, 9)}, "too small"),
    "no training images": ({"train_images": blank(0, 1, 8, 9)}, "empty"),
    "test images of another size": (
        {"test_images": shades(0, 255, shape=(1, 9, 8))},
        r"\(1, 9, 8\)",
    ),
    "test images in colour": ({"test_images": shades(0, 255, shape=(3, 8, 9))}, r"\(3, 8, 9\)"),
    "negative labels": ({"train_labels": np.arange(20) % 4 - 1}, r"train_labels\[0\] is -1"),
    "a huge label": (
        {"train_labels": np.r_[np.zeros(19, np.uint64), np.uint64(2**64 - 1)].astype(np.uint64)},
        r"train_labels\[19\] is 18446744073709551615",
    ),
    "test labels of no training image": (
        {"test_labels": np.arange(6)},
        r"test_labels\[4\] is 4, which is none of the classes 0, 1, 2, 3",
    ),
    "too few labels": ({"train_labels": np.arange(19) % 4}, r"\(19,\)"),
    "labels in two columns": ({"train_labels": np.ones((20, 2), int)}, r"\(20, 2\)"),
    "fractions as labels": ({"train_labels": np.arange(20) / 2}, r"train_labels\[1\] is 0.5"),
    "labels, not a number": ({"train_labels": np.full(20, np.nan)}, r"train_labels\[0\] is nan"),
    "a label": ({"train_label": np.arange(20)}, "train_labels"),
    "no test column": (
        {"train_angle": np.zeros(20)},
        "has train_angle and test_images but no test_angle",
    ),
    "no training column": (
        {"test_angle": np.zeros(6)},
        "has test_angle and train_images but no train_angle",
    ),
    "a validation column alone": (
        {"val_labels": np.zeros(6, int)},
        "has val_labels but no val_images",
    ),
    "test labels alone": ({"test_images": None}, "has test_labels but no test_images"),
    "no validation labels": (
        {"val_images": shades(0, 255)},
        "has train_labels and val_images but no val_labels",
    ),
    "numbers too few": (angles(np.zeros(19), np.zeros(6)), "train_angle have shape"),
    "numbers of another width": (angles(np.zeros((20, 2)), np.zeros(6)), "test_angle are 1 wide"),
    "numbers that are none": (
        angles(np.where(np.arange(20) == 5, np.nan, 0.0), np.zeros(6)),
        r"train_angle\[5\] is nan",
    ),
    "numbers too large": (
        angles(np.zeros((20, 2)), np.eye(6, 2) * 1e300),
        r"test_angle\[0\] is 1e\+300, which is too large for single precision",
    ),
    "numbers and classes": (
        angles(np.zeros(20), np.zeros(6, int)),
        "test_angle should be .*floats",
    ),
    "classes not trained": (
        angles(np.zeros(20, int), np.ones(6, int)),
        r"test_angle\[0\] is 1, which is none",
    ),
    "classes in rows": (angles(np.zeros((20, 2), int), np.zeros(6, int)), "train_angle have shape"),
    "no test labels": ({"test_labels": None}, "test_labels"),
    "far too many classes": (
        {"train_labels": np.arange(20) * 1000},
        "train_labels are of 20 classes, too many for 20 images",
    ),
}


@FORMATS
def test_columns_beside_images_and_labels(tmp_path, suffix):
    classes = angles(np.arange(20) % 3, np.arange(6) % 2)
    numbers = {"train_place": np.linspace(0, 1, 20), "test_place": np.linspace(1, 2, 6)}
    pairs = {"train_pair": np.ones((20, 2), np.float16), "test_pair": np.zeros((6, 2))}
    bits = {"train_smile": np.arange(20) % 2 == 0, "test_smile": np.arange(6) % 2 == 1}
    arrays = changed(**classes, **numbers, **pairs, **bits)
    found = read_splits(save(tmp_path / f"a{suffix}", arrays))
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


def refusal(path, num_classes=None):
    """The message of the error, which has the path and is one line."""
    with pytest.raises(UserError) as error:
        read_splits(path, num_classes)
    message = str(error.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


@FORMATS
@pytest.mark.parametrize("case", BAD)
def test_refuses_arrays_of_another_kind(tmp_path, suffix, case):
    changes, expected = BAD[case]
    path = save(tmp_path / f"a{suffix}", changed(**changes))
    with pytest.raises(UserError, match=expected):
        read_splits(path)
    assert "truncated" not in refusal(path)


@FORMATS
def test_refuses_labels_beyond_num_classes(tmp_path, suffix):
    message = refusal(save(tmp_path / f"a{suffix}", good()), num_classes=3)
    assert "train_labels[3] is 3, which is none of the classes 0, 1, 2" in message


@pytest.mark.parametrize("labels", [["cat", "dog"] * 10, [None] * 20])
def test_refuses_objects_with_what_to_save_instead(tmp_path, labels):
    message = refusal(save(tmp_path / "a.npz", changed(train_labels=np.array(labels, object))))
    assert "train_labels holds Python objects" in message
    assert "train_labels.astype(str)" in message
    np.save(tmp_path / "a.npy", np.array(labels, object))
    assert "holds Python objects" in refusal(tmp_path / "a.npy")


FOUR = np.arange(20) % 4


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (FOUR, ["0", "1", "2", "3"]),
        (FOUR + 1, ["1", "2", "3", "4"]),
        (np.array([0, 3, 7, 100])[FOUR], ["0", "3", "7", "100"]),
        (FOUR[:, None], ["0", "1", "2", "3"]),
        (np.eye(4)[FOUR], ["0", "1", "2", "3"]),
        (FOUR.astype(np.float32), ["0", "1", "2", "3"]),
        (np.array(["a", "bb", "c c", "d"])[FOUR], ["a", "bb", "c c", "d"]),
        (np.array(["ä", "b", "c", "ö"])[FOUR].astype("U"), ["b", "c", "ä", "ö"]),
        (np.array([b"a", b"bb", b"c", b"d"])[FOUR], ["a", "bb", "c", "d"]),
        (FOUR > 1, ["0", "1"]),
    ],
)
def test_classes_are_those_that_occur(tmp_path, labels, names):
    arrays = changed(train_labels=labels, test_labels=labels[:6])
    found = read_splits(save(tmp_path / "a.npz", arrays))
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
    assert f"{len(names)} classes: {', '.join(names)}" in data.description()


def test_text_and_numbers_are_not_the_same_classes(tmp_path):
    arrays = changed(train_labels=FOUR, test_labels=FOUR[:6].astype(str))
    assert "test_labels are <U" in refusal(save(tmp_path / "a.npz", arrays))


@FORMATS
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
def test_pixels_of_a_range_are_those_of_bytes(tmp_path, suffix, span, kind):
    """Whatever type they are of: 256 greys come back to the bit."""
    arrays = good()
    black, white = span
    for name in ("train_images", "test_images"):
        values = black + arrays[name].astype(np.float64) * (white - black) / 255
        arrays[name] = values.astype(kind)
    path = save(tmp_path / f"a{suffix}", arrays)
    assert_same(Arrays(str(path), range=span)(), good())
    data = Images(source=Arrays(str(path), range=span), batch_size=4, val_size=4, pixels="grey")
    low, high = (extreme(good()["train_images"]) for extreme in (np.min, np.max))
    assert data.description()[0] == f"pixels from {low} to {high}, which were {black} to {white}"


def test_dark_images_may_be_meant(tmp_path):
    path = save(tmp_path / "a.npz", {"train_images": shades(0, 100)})
    assert Arrays(str(path), range=(0, 255))().train_images.max() == 100


@pytest.mark.parametrize(("span", "said"), [((1, 0), "should rise"), ((0, 1), r"\[10\] reaches")])
def test_a_range_that_does_not_fit_is_refused(tmp_path, span, said):
    path = save(tmp_path / "a.npz", {"train_images": shades(0, 100)})
    with pytest.raises(UserError, match=said):
        Arrays(str(path), range=span)()


def test_whole_numbers_up_to_255_are_bytes(tmp_path):
    arrays = {"train_images": good()["train_images"].astype(np.int64)}
    assert torch.equal(
        read_splits(save(tmp_path / "a.npz", arrays)).train_images,
        torch.from_numpy(good()["train_images"]),
    )


@FORMATS
def test_reads_a_validation_part(tmp_path, suffix):
    more = {"val_images": shades(0, 255, count=8), "val_labels": np.arange(8) % 4}
    columns = {
        f"{part}_place": np.full(n, 0.5) for part, n in (("train", 20), ("val", 8), ("test", 6))
    }
    found = read_splits(save(tmp_path / f"a{suffix}", good() | more | columns))
    assert_same(found, good() | more)
    assert found.column("place").val.shape == (8, 1)
    assert found.column("label").val.tolist() == [0, 1, 2, 3] * 2
    assert list(found.parts) == ["train", "val", "test"]


def test_what_is_not_used_is_named(tmp_path):
    found = read_splits(save(tmp_path / "a.npz", good() | {"notes": np.zeros(3), "x": np.ones(2)}))
    assert found.unused == ("notes", "x")
    data = Images(source=lambda: found, batch_size=4, val_size=4, pixels="grey")
    assert data.description()[-1] == "not used: notes, x"


def test_arrays_by_other_names_are_listed(tmp_path):
    message = refusal(save(tmp_path / "a.npz", {"x_train": shades(0, 255), "y_train": FOUR}))
    assert "has x_train uint8 (20, 1, 8, 9), y_train int64 (20,), but should have train" in message


def test_a_single_array_is_the_training_images(tmp_path):
    np.save(tmp_path / "a.npy", good()["train_images"])
    found = read_splits(tmp_path / "a.npy")
    assert torch.equal(found.train_images, torch.from_numpy(good()["train_images"]))
    assert found.num_classes == 0


def test_names_the_type_of_arrays_it_does_not_take(tmp_path):
    save_file({"train_images": shades(0, 255)}, tmp_path / "a.safetensors")
    whole = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(whole.replace(b'"U8"', b'"X8"'))
    assert "train_images are X8, which is no type for it" in refusal(tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", ["a.npz", "a.safetensors", "no/such/folder.npz", "a"])
def test_refuses_a_missing_file(tmp_path, name):
    assert "no such file" in refusal(tmp_path / name)


@FORMATS
def test_refuses_a_folder(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.mkdir()
    refusal(path)


@FORMATS
def test_refuses_a_path_through_a_file(tmp_path, suffix):
    (tmp_path / "a").write_bytes(b"")
    refusal(tmp_path / "a" / f"b{suffix}")


def cuts(path):
    """Lengths at which a copy of the file may have ended."""
    size = path.stat().st_size
    lengths = {0, 1, 4, 7, 8, 9, size // 4, size // 2, size - 100, size - 8, size - 1}
    if path.suffix == ".safetensors":
        header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
        lengths |= {header // 2, header - 1, header, header + 1, header + 8}
    return sorted(lengths)


@FORMATS
def test_refuses_a_truncated_file(tmp_path, suffix):
    whole = save(tmp_path / f"whole{suffix}", good())
    for length in cuts(whole):
        path = tmp_path / f"cut_at_{length}{suffix}"
        path.write_bytes(whole.read_bytes()[:length])
        assert "truncated" in refusal(path)


@FORMATS
@pytest.mark.parametrize("seed", range(5))
def test_refuses_random_bytes(tmp_path, suffix, seed):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(np.random.default_rng(seed).bytes(3000))
    refusal(path)


HEADERS = [
    b"5",
    b"[]",
    b"{}",
    b"null",
    b"{",
    b'{"train_images": 3}',
    b'{"train_images": {}}',
    b"\xff",
]


@pytest.mark.parametrize("header", HEADERS)
def test_refuses_a_header_of_another_kind(tmp_path, header):
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(100))
    refusal(path)


@pytest.mark.parametrize("offsets", [[0, 1439], [1, 1441], [1440, 0], ["a", "b"], [0]])
def test_refuses_offsets_that_are_not_in_the_file(tmp_path, offsets):
    entry = {"dtype": "U8", "shape": [20, 8, 9], "data_offsets": offsets}
    header = json.dumps({"train_images": entry}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(1440))
    refusal(path)


def test_refuses_a_damaged_zip(tmp_path):
    path = save(tmp_path / "a.npz", good(count=200))
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 255
    path.write_bytes(damaged)
    refusal(path)


def test_refuses_a_zip_of_other_things(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("train_images.npy", b"nothing")
    refusal(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("notes.txt", b"nothing")
    assert "has notes.txt float64 (0,), but should have train_images" in refusal(path)


def test_refuses_a_single_array_named_npz(tmp_path):
    path = tmp_path / "a.npz"
    with path.open("wb") as file:
        np.save(file, blank(20, 8, 9))
    refusal(path)


# Prepared files.


def test_prepared_is_what_was_made_and_a_view_of_the_file(tmp_path):
    path, arrays = tmp_path / "deep" / "er" / "a.safetensors", good()
    first = load_or_create(path, lambda: arrays)
    assert_same(first, arrays)
    assert first.num_classes == 4
    before = path.read_bytes()
    first.train_images.zero_()  # a private page, not the file
    again = load_or_create(path, pytest.fail)
    assert_same(again, arrays)
    assert path.read_bytes() == before


def test_images_that_are_no_block_of_memory_are_written_as_they_look(tmp_path):
    arrays = good()
    arrays["train_images"] = arrays["train_images"].transpose(0, 1, 3, 2)
    arrays["test_images"] = arrays["test_images"][:, :, ::-1].transpose(0, 1, 3, 2)
    expected = {name: array.copy() for name, array in arrays.items()}
    assert_same(load_or_create(tmp_path / "a.safetensors", lambda: arrays), expected)


def test_an_existing_file_is_used_as_it_is(tmp_path):
    path = save(tmp_path / "a.safetensors", good())
    path.chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        assert_same(load_or_create(path, pytest.fail), good())
        assert [p.name for p in tmp_path.iterdir()] == [path.name]
    finally:
        tmp_path.chmod(0o755)


def test_a_damaged_prepared_file_is_named(tmp_path):
    path = save(tmp_path / "a.safetensors", good())
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=str(path)):
        load_or_create(path, pytest.fail)


def leftovers(folder):
    return [p.name for p in folder.iterdir() if p.suffix != ".lock"]


def test_a_failing_make_leaves_no_file(tmp_path):
    def fail():
        raise KeyboardInterrupt

    path = tmp_path / "a.safetensors"
    with pytest.raises(KeyboardInterrupt):
        load_or_create(path, fail)
    assert leftovers(tmp_path) == []
    assert_same(load_or_create(path, good), good())  # and no lock
    assert leftovers(tmp_path) == [path.name]


def test_a_full_disk_leaves_no_file(tmp_path, monkeypatch):
    def half(arrays, path):
        Path(path).write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "a.safetensors"
    monkeypatch.setattr(store, "save_file", half)
    with pytest.raises(UserError, match=f"{path}: No space left on device"):
        load_or_create(path, good)
    assert leftovers(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_an_error_of_the_user(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="cannot write"):
        load_or_create(tmp_path / "file" / "a.safetensors", good)


def make_slowly(folder):
    (folder / f"made by {os.getpid()}").touch()
    time.sleep(1)
    return good()


def prepare(folder, barrier):
    barrier.wait()
    found = load_or_create(folder / "a.safetensors", partial(make_slowly, folder))
    assert_same(found, good())


@pytest.mark.slow
def test_processes_that_prepare_at_once_make_one_file(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    processes = [context.Process(target=prepare, args=(tmp_path, barrier)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    names = sorted(leftovers(tmp_path))
    assert names[0] == "a.safetensors"
    assert [name[:7] for name in names[1:]] == ["made by"]


# Sources.


def test_digits(tmp_path):
    found = Digits(str(tmp_path))()
    assert found.train_images.shape == (5000, 1, 28, 28)
    assert found.train_images.dtype == torch.uint8
    assert found.train_labels.bincount().tolist() == [500] * 10
    assert found.num_classes == 10
    assert len(found.test_images) == 0
    assert found.train_images.max() == 255
    corners = found.train_images[:, 0, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert not corners.any()  # digits in the middle of a black square
    row = found.train_images.sum((0, 1)).float()
    assert row.argmax() // 28 in range(10, 18)


class Fake:
    """A data set with torchvision's attributes."""

    def __init__(self, folder, train, download, colour=False):
        random = np.random.default_rng(train)
        count = 20 if train else 6
        if colour:
            self.data = random.integers(0, 256, (count, 9, 8, 3), dtype=np.uint8)
            self.targets = (np.arange(count) % 4).tolist()
        else:
            self.data = torch.from_numpy(random.integers(0, 256, (count, 9, 8), dtype=np.uint8))
            self.targets = torch.arange(count) % 4


def torchvision_source(name, folder):
    return TorchvisionDataset(name, str(folder), "file.safetensors", by_hand="the files in raw")


def test_grey_images_of_torchvision_get_a_channel(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "MNIST", Fake)
    found = torchvision_source("MNIST", tmp_path)()
    for train, images in ((True, found.train_images), (False, found.test_images)):
        assert torch.equal(images, Fake("", train, True).data[:, None])
    assert torch.equal(found.train_labels, torch.arange(20) % 4)
    assert torch.equal(found.test_labels, torch.arange(6) % 4)


def test_colour_images_of_torchvision_get_channels_first(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "CIFAR10", partial(Fake, colour=True))
    found = torchvision_source("CIFAR10", tmp_path)()
    data = torch.from_numpy(Fake("", True, True, colour=True).data)
    assert found.train_images.shape == (20, 3, 9, 8)
    assert torch.equal(found.train_images, data.permute(0, 3, 1, 2))
    assert found.test_images.shape == (6, 3, 9, 8)
    assert torch.equal(found.train_labels, torch.arange(20) % 4)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Error downloading train-images-idx3-ubyte.gz:\nTried https://..."),
        OSError(errno.ENETUNREACH, "Network is unreachable"),
        ConnectionResetError(),
    ],
)
def test_a_failed_download_says_what_to_do(tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(datasets, "MNIST", fail)
    with pytest.raises(UserError) as refused:
        torchvision_source("MNIST", tmp_path)()
    message = str(refused.value)
    assert "\n" not in message
    for words in ("MNIST", str(tmp_path), "the files in raw", "by hand", "data=mnist_5k"):
        assert words in message
    assert leftovers(tmp_path) == []


def stored(*parts):
    """A file or folder of the user's data sets, or a skip."""
    folder = Path(os.environ.get("VAELAB_DATA", "data"))
    path = folder.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs {'/'.join(parts)} in VAELAB_DATA={folder}, which is not there")
    return path.resolve()


def raw_source(name, tmp_path):
    (tmp_path / name).mkdir()
    (tmp_path / name / "raw").symlink_to(stored(name, "raw"))
    return torchvision_source(name, tmp_path)


def test_mnist(tmp_path):
    found = raw_source("MNIST", tmp_path)()
    assert found.train_images.shape == (60_000, 1, 28, 28)
    assert found.test_images.shape == (10_000, 1, 28, 28)
    assert found.train_labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert found.test_labels[:5].tolist() == [7, 2, 1, 0, 4]
    train = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    test = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert found.train_labels.bincount().tolist() == train
    assert found.test_labels.bincount().tolist() == test
    assert found.train_images.float().mean().item() / 255 == pytest.approx(0.1307, abs=1e-4)


def test_fashion_mnist(tmp_path):
    found = raw_source("FashionMNIST", tmp_path)()
    assert found.train_images.shape == (60_000, 1, 28, 28)
    assert found.test_images.shape == (10_000, 1, 28, 28)
    assert found.train_labels[:3].tolist() == [9, 0, 0]
    assert found.train_labels.bincount().tolist() == [6000] * 10
    assert found.test_labels.bincount().tolist() == [1000] * 10
    assert found.train_images.float().mean().item() / 255 == pytest.approx(0.2860, abs=1e-4)


def test_cifar10():
    found = read_splits(stored("cifar10.safetensors"))
    assert found.train_images.shape == (50_000, 3, 32, 32)
    assert found.test_images.shape == (10_000, 3, 32, 32)
    assert found.train_labels[:3].tolist() == [6, 9, 9]
    assert found.test_labels[:4].tolist() == [3, 8, 8, 0]
    assert found.train_labels.bincount().tolist() == [5000] * 10
    assert found.test_labels.bincount().tolist() == [1000] * 10
    means = found.train_images[:5000].float().mean((0, 2, 3)) / 255  # red, green and blue
    assert means.tolist() == pytest.approx([0.491, 0.482, 0.447], abs=0.01)


@pytest.mark.slow
def test_digits_are_digits_of_mnist(tmp_path):
    everything = raw_source("MNIST", tmp_path)()
    few = Digits(str(tmp_path))()
    known = {image.numpy().tobytes(): int(label) for image, label in pairs(everything)}
    assert all(known[image.numpy().tobytes()] == int(label) for image, label in pairs(few))


def pairs(found):
    return zip(found.train_images, found.train_labels, strict=True)


def test_digits_are_read_from_a_package_alone(tmp_path, monkeypatch):
    """No download, and none but the one compressed table."""
    opened = []
    original = gzip.open
    monkeypatch.setattr(gzip, "open", lambda *a, **k: opened.append(a) or original(*a, **k))
    Digits(str(tmp_path))()
    Digits(str(tmp_path))()
    assert len(opened) == 1
