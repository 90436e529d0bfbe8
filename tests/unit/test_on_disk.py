"""Images that are read from a large file as they are needed, against the same images in memory."""

import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from support.numbered_images import flatten, image_numbers, numbered_images

from vaelab.data import Arrays, Images, on_disk
from vaelab.data.on_disk import OnDisk, block_order, read_ahead
from vaelab.errors import UserError
from vaelab.randomness import seeded_generator

SHAPE = (3, 8, 8)


@pytest.fixture(autouse=True)
def small_limits(monkeypatch):
    """Has files of over 5,000 bytes count as large, with blocks of 3 images and short reads."""
    monkeypatch.setattr(on_disk, "LARGE", 5000)
    monkeypatch.setattr("vaelab.data.batches.BLOCK", 3 * 192)
    monkeypatch.setattr("vaelab.data.batches.DRAWN", 1000)
    monkeypatch.setattr("vaelab.data.images.TOGETHER", 3000)
    monkeypatch.setattr(on_disk, "NEAR", 400)


@pytest.fixture(params=["npy", "safetensors"])
def path(request, tmp_path):
    """A file of 200 numbered images; the first pixel of image i is i."""
    images = numbered_images(200, SHAPE).numpy()
    images[0, 1, 0, 0], images[0, 1, 0, 1] = 0, 255
    found = tmp_path / f"images.{request.param}"
    if request.param == "npy":
        np.save(found, images)
    else:
        labels = np.arange(200) % 5
        save_file({"train_labels": labels, "train_images": images}, found)
    return found


def build_module(path, **changes):
    """Returns a data module of the images in a file; windows have some 40 images."""
    settings = {"batch_size": 8, "val_size": 20, "test_size": 10, "pixels": "grey"} | changes
    data = Images(source=Arrays(str(path)), **settings)
    data.setup("fit")
    data.setup("test")
    data.train.window = 8000  # bytes
    return data


def batches_of(loader, epoch=0):
    """Returns all batches (x, y) of an epoch."""
    loader.set_epoch(epoch)
    return list(loader)


def assert_same_batches(found, expected):
    """Asserts that lists of batches (x, y) have the same bits."""
    for batch, other in zip(found, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(batch, other, strict=True))


@pytest.mark.parametrize("near", [0, 400, 10**6])
@pytest.mark.parametrize("buffers", [2, 5, 1000])
def test_reading_equals_indexing(path, monkeypatch, near, buffers):
    monkeypatch.setattr(on_disk, "NEAR", near)
    monkeypatch.setattr(on_disk, "BUFFERS", buffers)
    images = Arrays(str(path))().train_images
    assert isinstance(images, OnDisk)
    whole = images.map_all()
    assert images.shape == whole.shape == (200, *SHAPE)
    random = torch.randint(200, (300,))
    for rows in (random, random[:0], torch.arange(200), torch.arange(199, -1, -3)):
        assert torch.equal(images[rows], whole[rows])
        assert torch.equal(images.index_select(0, rows), whole[rows])


def test_reading_goes_on_after_short_reads(path, monkeypatch):
    images, read = Arrays(str(path))().train_images, os.preadv

    def read_little(file, buffers, offset):
        """Reads at most 100 bytes, as a network file system may."""
        return read(file, [buffers[0][:100]], offset)

    monkeypatch.setattr(os, "preadv", read_little)
    rows = torch.randint(200, (50,))
    assert torch.equal(images[rows], images.map_all()[rows])


def test_changed_and_truncated_files_are_refused(path):
    images = Arrays(str(path))().train_images
    content = path.read_bytes()
    path.write_bytes(content[:-1000])
    with pytest.raises(UserError, match="changed while it was in use"):
        images[torch.tensor([0])]
    images.version = on_disk.file_version(os.open(path, os.O_RDONLY))
    with pytest.raises(UserError, match="ends too early"):
        images[torch.tensor([199])]
    path.unlink()
    with pytest.raises(UserError, match=f"{path.name}: cannot be read"):
        images[torch.tensor([0])]


def test_part_of_a_mapped_array_is_read_from_its_own_place(path):
    whole = Arrays(str(path))().train_images
    array = np.memmap(path, np.uint8, "c", whole.offset, whole.shape)
    part = OnDisk.of_mapped(array[17:90][:, :2][:, 1:])  # of one channel: not contiguous
    assert part.offset > whole.offset
    contiguous = OnDisk.of_mapped(array[17:90])
    assert torch.equal(contiguous[torch.tensor([0, 72])], whole[torch.tensor([17, 89])])


def test_only_large_mapped_uint8_files_stay_on_disk(tmp_path, monkeypatch):
    images = numbered_images(200, SHAPE).numpy()
    images[0, 1, 0, :2] = 0, 255
    np.save(tmp_path / "large.npy", images)
    np.save(tmp_path / "two_axes.npy", images[:, 0])
    np.save(tmp_path / "small.npy", images[:20])
    np.save(tmp_path / "wide.npy", images.astype(np.int16))
    np.savez(tmp_path / "packed.npz", train_images=images)
    kinds = {p.stem: type(Arrays(str(p))().train_images) for p in tmp_path.iterdir()}
    assert kinds.pop("large") is kinds.pop("two_axes") is OnDisk
    assert set(kinds.values()) == {torch.Tensor}
    ranged = Arrays(str(tmp_path / "large.npy"), range=(0, 255))().train_images
    assert isinstance(ranged, OnDisk)
    monkeypatch.setattr("vaelab.data.images.LARGE", 5000)
    refused = Images(
        source=Arrays(str(tmp_path / "packed.npz")),
        batch_size=8,
        val_size=20,
        pixels="grey",
        in_memory="window",
    )
    with pytest.raises(UserError, match="in_memory=window: these images are read whole"):
        refused.check_training_draw()


@pytest.mark.parametrize(("low", "high"), [(7, 7), (0, 100)])
def test_large_file_of_doubtful_range_is_refused(tmp_path, low, high):
    np.save(
        tmp_path / "dark.npy", np.linspace(low, high, 200 * 192, dtype=np.uint8).reshape(-1, *SHAPE)
    )
    with pytest.raises(UserError, match=r"data\.source\.range"):
        Arrays(str(tmp_path / "dark.npy"))()


def test_block_order_has_each_row_once_and_few_places_in_a_window():
    rows = torch.arange(1000)[torch.rand(1000) > 0.2]
    order = block_order(rows, 20, 100, seeded_generator("x"))
    assert torch.equal(order.sort().values, rows)
    for window in order.split(100):
        places = torch.searchsorted(rows, window) // 20
        assert len(places.unique()) <= 6  # five blocks, one of which may be the short one
        assert not torch.equal(window.sort().values, window)
    assert torch.equal(block_order(rows, 20, 100, seeded_generator("x")), order)
    assert not torch.equal(block_order(rows, 20, 100, seeded_generator("y")), order)


def test_every_epoch_has_each_training_image_once(path):
    loader = build_module(path, batch_size=10).train
    orders = []
    for epoch in range(3):
        loader.set_epoch(epoch)
        orders.append(flatten(image_numbers(loader)))
        assert sorted(orders[-1]) == sorted(loader.rows.tolist())
        again = build_module(path, batch_size=10).train
        again.set_epoch(epoch)
        assert flatten(image_numbers(again)) == orders[-1]
    assert len({str(order) for order in orders}) == 3
    other = build_module(path, batch_size=10, seed=1).train
    assert flatten(image_numbers(other)) != orders[0]


@pytest.mark.parametrize("pixels", ["binary", "dequantized"])
@pytest.mark.parametrize("balance", [False, True])
def test_batches_held_in_memory_and_in_windows_are_the_same(path, pixels, balance):
    if balance and path.suffix == ".npy":
        pytest.skip("has no labels")
    settings = {"pixels": pixels, "balance": balance, "flip": True, "shift": 2}
    window = build_module(path, in_memory="window", **settings)
    held = build_module(path, in_memory="all", **settings)
    assert isinstance(window.train.images, OnDisk)
    assert isinstance(held.train.images, torch.Tensor)
    for epoch in (0, 1):
        assert_same_batches(batches_of(window.train, epoch), batches_of(held.train, epoch))


def test_resumed_epoch_yields_exactly_the_remaining_batches(path):
    settings = {"pixels": "dequantized", "flip": True, "shift": 1}
    whole = batches_of(build_module(path, **settings).train, epoch=1)
    for position in range(len(whole)):
        loader = build_module(path, **settings).train
        loader.load_state_dict({"position": position})
        assert_same_batches(batches_of(loader, epoch=1), whole[position:])
        assert_same_batches(batches_of(loader, epoch=1), whole)


def test_shares_of_processes_are_disjoint_and_concatenate_to_the_batch(path):
    alone = build_module(path, pixels="dequantized").train
    shares = [build_module(path, pixels="dequantized").train for _ in range(2)]
    for rank, share in enumerate(shares):
        share.rank, share.world_size = rank, 2
    for whole, *parts in zip(*map(batches_of, (alone, *shares)), strict=True):
        for i in (0, 1):  # x and y
            assert torch.equal(torch.cat([part[i] for part in parts]), whole[i])


@pytest.mark.parametrize("pixels", ["binary", "dequantized", "grey"])
@pytest.mark.parametrize("part", ["val", "test"])
def test_held_out_parts_are_those_of_a_file_in_memory(path, monkeypatch, part, pixels):
    monkeypatch.setattr("vaelab.data.pixels.NOISE_BLOCK", 1000)  # images are in several blocks
    found = batches_of(getattr(build_module(path, pixels=pixels), part))
    monkeypatch.setattr(on_disk, "LARGE", 10**9)
    data = build_module(path, pixels=pixels)
    assert isinstance(data.splits.train_images, torch.Tensor)
    assert_same_batches(found, batches_of(getattr(data, part)))


def test_own_validation_part_is_that_of_a_file_in_memory(tmp_path, monkeypatch):
    images = numbered_images(200, SHAPE).numpy()
    save_file(
        {"train_images": images, "val_images": images[::-1].copy()}, tmp_path / "a.safetensors"
    )
    large = build_module(tmp_path / "a.safetensors", pixels="binary")
    assert isinstance(large.val.images, OnDisk)
    monkeypatch.setattr(on_disk, "LARGE", 10**9)
    held = build_module(tmp_path / "a.safetensors", pixels="binary")
    assert_same_batches(batches_of(large.val), batches_of(held.val))


def test_fixed_bits_of_any_images_are_those_of_the_part(path, monkeypatch):
    monkeypatch.setattr("vaelab.data.pixels.NOISE_BLOCK", 1000)
    module = build_module(path, pixels="binary")
    images, rows = module.val.images, module.rows["val"]
    every = images[rows]
    drawn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:7]
    assert torch.equal(images[rows[drawn]], every[drawn])


@pytest.mark.parametrize("part", ["val", "test"])
def test_fixed_bits_ignore_batch_size_epoch_and_seed(path, part):
    def bits(epoch=0, **changes):
        loader = getattr(build_module(path, pixels="binary", **changes), part)
        return torch.cat([x for x, _ in batches_of(loader, epoch)])

    fixed = bits()
    assert fixed.unique().tolist() == [0, 1]
    assert torch.equal(bits(batch_size=3), fixed)
    assert torch.equal(bits(seed=1), fixed)
    assert torch.equal(bits(epoch=1), fixed)
    assert not torch.equal(bits(split_seed=1), fixed)
    grey = torch.cat([x for x, _ in batches_of(getattr(build_module(path), part))])
    assert abs((fixed - grey).mean()) < 0.05
    assert fixed[grey == 1].eq(1).all()


def test_labels_match_their_images(tmp_path):
    images, rows = numbered_images(200, SHAPE).numpy(), np.arange(200)
    images[0, 1, 0, :2] = 0, 255
    arrays = {"images": images, "labels": rows % 5, "size": rows.astype(np.float32)}
    parts = {"train": slice(120), "val": slice(120, 160), "test": slice(160, 200)}
    saved = {f"{p}_{n}": a[s].copy() for p, s in parts.items() for n, a in arrays.items()}
    save_file(saved, tmp_path / "parts.safetensors")
    data = build_module(tmp_path / "parts.safetensors", columns=["label", "size"], numbers=True)
    assert {type(images) for images in data.splits.parts.values()} == {OnDisk}
    for part, numbers in parts.items():
        loader = getattr(data, part)
        seen = torch.tensor(flatten(image_numbers(loader)))
        y = torch.cat([y for _, y in loader])
        assert sorted(seen.tolist()) == rows[numbers].tolist()
        assert torch.equal(y[:, :5].argmax(1), seen % 5)
        assert torch.equal(y[:, 5], seen.float())


def test_error_of_the_reading_thread_ends_the_epoch(path):
    loader = build_module(path).train
    iterator = iter(loader)
    next(iterator)
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"has changed|ends too early"):  # as far as the thread was
        list(iterator)


def test_abandoned_epoch_ends_its_thread_and_does_not_affect_the_next(path):
    import threading

    loader = build_module(path).train
    whole = image_numbers(loader)
    iterator = iter(loader)
    next(iterator)
    iterator.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("read_ahead")]
    assert image_numbers(loader) == whole


def test_windows_are_read_one_ahead():
    read = []
    windows = [torch.tensor([n]) for n in range(5)]
    for n, (rows, found) in enumerate(read_ahead(partial(keep, read), windows)):
        assert rows is windows[n]
        assert found == n
        assert len(read) <= n + 2
    assert read == list(range(5))


def keep(read, rows):
    """Adds the number of a window to a list and returns it."""
    read.append(int(rows))
    return int(rows)


MEASURED = """
import re, sys
from pathlib import Path
from vaelab.data import Arrays, Images

def held():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

data = Images(source=Arrays(sys.argv[1]), batch_size=500, val_size=0.1, test_size=0.1,
              pixels="binary", window=50)
assert data.sizes
before, most = held(), 0
for part in ("train", "val", "test"):
    for x, y in data.batches(part):
        most = max(most, held())
print((most - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads memory as Linux says it")
def test_memory_is_bounded_by_windows_not_by_the_file(tmp_path):
    """A file of 800 MB with holes, which takes no room, but as much memory if it is held."""
    path, count = tmp_path / "holes.npy", 65_000
    whole = np.lib.format.open_memmap(path, "w+", np.uint8, (count, 3, 64, 64))
    whole[0, 0, 0, 0] = 255
    del whole
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(path)], capture_output=True, text=True, check=True
    )
    # MB: two windows, and batches; 190 to 330 by what the C library keeps of what was freed
    assert int(done.stdout) < 450
