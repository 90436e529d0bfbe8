"""Images of known factors: the grid, the sprites drawn from it, and the original dSprites file."""

import math
import sys

import numpy as np
import pytest
import torch
from matplotlib.path import Path as Outline
from support.numbered_images import module

from vaelab.commands import train
from vaelab.data import DSprites, Sprites
from vaelab.data.batches import Batches
from vaelab.data.factors import Factors
from vaelab.data.sprites import CHUNK, NAMES
from vaelab.errors import UserError
from vaelab.runs import validation

SQUARE, ELLIPSE, HEART = range(3)
FULL = (64, 6, 40, 32)  # size, scales, orientations, positions
GRID = Factors(("a", "b", "c"), (3, 4, 5))


# Factors.


def test_rows_are_numbers_in_mixed_radix():
    rows = torch.randperm(60)
    factors = torch.from_numpy(np.stack(np.unravel_index(rows.numpy(), GRID.sizes), -1))
    assert GRID.num_images == 60
    assert torch.equal(GRID.values_at(rows), factors)
    assert torch.equal(GRID.rows(factors), rows)


def test_rows_are_those_of_the_original_file():
    """The bases by which its authors' notebook multiplies latents_classes."""
    sizes = np.array([1, 3, 6, 40, 32, 32])
    bases = np.concatenate((sizes[::-1].cumprod()[::-1][1:], [1]))
    classes = np.random.default_rng(0).integers(0, sizes, (1000, 6))
    found = DSprites.factors.rows(torch.from_numpy(classes[:, 1:]))
    assert torch.equal(found, torch.from_numpy(classes @ bases))
    assert DSprites.factors.num_images == 737_280


def test_samples_are_uniform_over_the_grid():
    count = 60_000
    factors = GRID.sample(count, torch.Generator().manual_seed(0))
    assert torch.equal(factors, GRID.sample(count, torch.Generator().manual_seed(0)))
    seen = GRID.rows(factors).bincount(minlength=60)
    assert len(seen) == 60
    assert (seen - count / 60).abs().max() < 5 * math.sqrt(count / 60)


# Sprites. Pictures are bool [..., H, W].


def pictures(factors, grid=FULL):
    """Pictures by their factors [..., 5]."""
    splits, factors = Sprites(*grid)(), torch.as_tensor(factors)
    images = splits.train_images[splits.factors.rows(factors.reshape(-1, 5))]
    return images.reshape(*factors.shape[:-1], *images.shape[2:]) == 255


def every(*grid):
    """All pictures of a grid, [3, scales, orientations, positions, positions, H, W]."""
    splits = Sprites(*grid)()
    images = splits.train_images[torch.arange(splits.factors.num_images)]
    return images.reshape(*splits.factors.sizes, *images.shape[2:]) == 255


def test_every_combination_is_an_image():
    splits = Sprites(*FULL)()
    assert splits.factors == DSprites.factors
    assert splits.train_images.shape == (737_280, 1, 64, 64)
    assert len(splits.train_images) == len(splits.train_labels) == 737_280
    assert splits.test_images.shape == (0, 1, 64, 64)
    assert len(splits.test_labels) == 0
    images = splits.train_images[torch.arange(0, 737_280, 211)]
    assert images.unique().tolist() == [0, 255]
    # The mean pixel of the original file, which its users divide by.
    assert images.double().mean().item() / 255 == pytest.approx(0.042494, rel=0.01)


def test_the_label_is_the_shape():
    splits = Sprites(16, 2, 3, 4)()
    factors = splits.factors.values_at(torch.arange(splits.factors.num_images))
    assert splits.num_classes == 3
    assert torch.equal(splits.train_labels, factors[:, 0])


def outline(shape, points=2000):
    """Its corners (x, y), y pointing down, of area 1 around the centre of mass."""
    turn = np.linspace(0, np.pi, points)
    half_disc = np.stack([np.cos(turn), np.sin(turn)], 1)
    if shape == SQUARE:
        corners = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    elif shape == ELLIPSE:
        corners = np.concatenate([half_disc, -half_disc]) * [2, 1]
    else:
        top = np.array([0, -1]) - half_disc  # on the upper side of a square of side 2
        left = np.array([-1, 0]) - half_disc[:, ::-1]
        corners = np.concatenate([[[1, 1]], [[1, -1]], top[::-1], left, [[-1, 1]]])
        corners = corners @ np.array([[1, 1], [-1, 1]]) / np.sqrt(2)  # on its tip
    x, y = corners.T
    cross = x * np.roll(y, -1) - np.roll(x, -1) * y  # of neighbours: twice the area of triangles
    middle = ((corners + np.roll(corners, -1, 0)) * cross[:, None]).sum(0) / 3 / cross.sum()
    return (corners - middle) / math.sqrt(abs(cross.sum()) / 2)


@pytest.mark.parametrize("shape", [SQUARE, ELLIPSE, HEART])
@pytest.mark.parametrize("grid", [FULL, (32, 3, 10, 16)])
def test_pictures_are_the_pixels_inside_the_outline(shape, grid):
    size, scales, orientations, positions = grid
    sizes = torch.tensor([scales, orientations, positions, positions])
    factors = torch.cat([torch.full((40, 1), shape), (torch.rand(40, 4) * sizes).long()], 1)
    places = np.stack(np.meshgrid(*[np.arange(size) + 0.5] * 2), -1).reshape(-1, 2)
    side = math.sqrt(0.0718) * size
    for picture, (_, scale, orientation, x, y) in zip(
        pictures(factors, grid), factors.tolist(), strict=True
    ):
        angle = 2 * np.pi * orientation / (orientations - 1)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        centre = size / 4 + np.array([x, y]) * size / 2 / (positions - 1)
        length = side * (0.5 + 0.5 * scale / (scales - 1))
        inside = Outline(outline(shape) @ turn.T * length + centre).contains_points(places)
        assert torch.equal(picture, torch.from_numpy(inside.reshape(size, size)))


def test_no_two_combinations_look_the_same_but_for_a_whole_turn():
    found = every(64, 6, 8, 5)
    assert torch.equal(found[:, :, 0], found[:, :, -1])
    images = found[:, :, :-1].reshape(-1, 64 * 64)
    assert len(np.unique(np.packbits(images.numpy(), axis=1), axis=0)) == len(images)


def test_symmetric_shapes_repeat_within_a_turn():
    quarters = every(64, 2, 5, 4).transpose(1, 2)  # [shape, orientation, ...]
    same = [[torch.equal(a[0], b) for b in a] for a in quarters]
    assert same[SQUARE] == [True, True, True, True, True]
    assert same[ELLIPSE] == [True, False, True, False, True]
    assert same[HEART] == [True, False, False, False, True]


def test_the_area_grows_with_the_square_of_the_scale():
    areas = every(64, 6, 12, 4).sum((-2, -1)).double().mean((2, 3, 4))  # [3, scales]
    expected = 0.0718 * 64**2 * torch.linspace(0.5, 1, 6).double().square()
    assert (areas / expected - 1).abs().max() < 0.02


def test_the_centre_of_mass_is_the_position():
    found = every(64, 3, 9, 5).double()
    places = torch.arange(64).double() + 0.5
    masses = found.sum((-2, -1))
    x = (found.sum(-2) * places).sum(-1) / masses
    y = (found.sum(-1) * places).sum(-1) / masses
    positions = torch.linspace(16, 48, 5).double()
    assert (x - positions[:, None]).abs().max() < 0.5
    assert (y - positions).abs().max() < 0.5
    assert (x.mean((1, 2, 4)) - positions).abs().max() < 0.05
    assert (y.mean((1, 2, 3)) - positions).abs().max() < 0.05


@pytest.mark.parametrize("size", [16, 17, 32, 64])
def test_no_shape_reaches_the_border(size):
    """At the ends of the range, where it is nearest, and with the whole sprite in the image."""
    found = every(size, 2, 41, 2)
    border = torch.ones(size, size, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    assert not (found & border).any()
    areas = found[:, -1].sum((-2, -1)).double()
    assert areas.mean().item() == pytest.approx(0.0718 * size**2, rel=0.03)


def test_an_image_is_the_same_alone_and_among_others():
    images = Sprites(32, 6, 10, 16)().train_images
    rows = torch.randint(len(images), (CHUNK + 40,))
    together = images[rows]
    assert torch.equal(together, torch.cat([images[row[None]] for row in rows]))
    assert torch.equal(together, images.index_select(0, rows))
    assert images[rows[:0]].shape == (0, 1, 32, 32)


def test_drawing_needs_no_values_on_the_host():
    """On a device without values, which any wait for one of them would end."""
    images = Sprites(*FULL)().train_images.to("meta")
    assert images.device.type == "meta"
    rows = torch.zeros(300, dtype=torch.int64, device="meta")
    assert images[rows].shape == (300, 1, 64, 64)
    assert images[rows].device.type == "meta"


# In the data module.


@pytest.mark.parametrize("pixels", ["binary", "dequantized"])
@pytest.mark.parametrize("rank", [0, 1])
def test_batches_are_those_of_a_tensor(pixels, rank):
    splits = Sprites(16, 2, 3, 3)()
    rows = torch.randperm(len(splits.train_images))[:50]
    settings = {"pixels": pixels, "batch_size": 12, "seed": 3, "shuffle": True}
    labels = torch.eye(3)[splits.train_labels]
    everything = splits.train_images[torch.arange(len(splits.train_images))]
    lazy, whole = (
        Batches(images, labels, rows, rank=rank, world_size=2, **settings)
        for images in (splits.train_images, everything)
    )
    for loader in (lazy, whole):
        loader.set_epoch(4)
        loader.load_state_dict({"position": 1})
    found = list(lazy)
    assert len(found) == 3
    for (x, y), (x_whole, y_whole) in zip(found, whole, strict=True):
        assert torch.equal(x, x_whole)
        assert torch.equal(y, y_whole)


def test_parts_of_the_grid_are_as_drawn():
    """Binary pixels are what they were, in every part, and y is the shape."""
    data = module(Sprites(16, 2, 3, 3), val_size=20, test_size=20, pixels="binary")
    assert data.sizes == {"train": 122, "val": 20, "test": 20}
    assert data.shapes == {
        "x_shape": (1, 16, 16),
        "pixels": "binary",
        "classes": {"label": 3},
        "class_names": {"label": ["square", "ellipse", "heart"]},
        "numbers": {},
    }
    splits = data.splits
    for part in ("val", "test"):
        x, y = (torch.cat(found) for found in zip(*getattr(data, part), strict=True))
        assert torch.equal(x * 255, splits.train_images[data.rows[part]].float())
        assert torch.equal(y.argmax(1), splits.factors.values_at(data.rows[part])[:, 0])
    rows = data.train.epoch_order()[:8]
    x, y = next(iter(data.train))
    assert torch.equal(x * 255, splits.train_images[rows].float())
    assert torch.equal(y.argmax(1), splits.factors.values_at(rows)[:, 0])


SMALL = [f"data.source.{name}" for name in ("size=16", "scales=2", "orientations=4", "positions=4")]


def test_a_conditional_model_trains_on_sprites(monkeypatch, tmp_path):
    folder = [f"hydra.run.dir={tmp_path}", "logger=none", "trainer.max_steps=2"]
    sizes = ["data.val_size=50", "data.test_size=50", "data.batch_size=64"]
    overrides = ["data=sprites", "network=conv", "condition=one_hot", *SMALL, *sizes, *folder]
    monkeypatch.setattr(sys, "argv", ["train.py", *overrides])
    train.main()
    assert (tmp_path / "results.json").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("size=15", "data.source.size=15: should be greater than or equal to 16"),
        ("scales=1", "data.source.scales=1: should be greater than or equal to 2"),
        ("orientations=2", "data.source.orientations=2: should be greater than or equal to 3"),
        ("positions=1", "data.source.positions=1: should be greater than or equal to 2"),
        ("size=32.5", "data.source.size=32.5: should be a valid integer"),
    ],
)
def test_refuses_grids_without_a_difference(compose, override, message):
    cfg = compose("data=sprites", f"data.source.{override}")
    with pytest.raises(UserError, match=message):
        validation.check_config(cfg, train.settings_schema)


# The original file: here of the same layout, but a small grid and random pixels.


@pytest.fixture
def arrays(monkeypatch):
    factors = Factors(NAMES, (3, 2, 3, 2, 4))
    monkeypatch.setattr(DSprites, "factors", factors)
    classes = np.stack(np.unravel_index(np.arange(144), (1, *factors.sizes)), 1)
    return {
        "metadata": np.array({"title": "dSprites dataset"}),  # pickled, and best left alone
        "imgs": np.random.default_rng(0).integers(0, 2, (144, 64, 64), dtype=np.uint8),
        "latents_classes": classes,
        "latents_values": classes / 2,
    }


def saved(folder, arrays):
    np.savez_compressed(folder / "dsprites.npz", **arrays)
    return DSprites(str(folder / "dsprites.npz"))


def test_reads_the_original_file_once_and_keeps_bits(tmp_path, arrays):
    source = saved(tmp_path, arrays)
    source()
    source.path.unlink()
    splits = source()
    images = splits.train_images
    assert images.shape == (144, 1, 64, 64)
    rows = torch.randperm(144)
    assert torch.equal(images[rows], torch.from_numpy(arrays["imgs"])[rows, None] * 255)
    assert torch.equal(splits.train_labels, torch.arange(3).repeat_interleave(48))
    assert splits.factors == DSprites.factors
    assert (tmp_path / "dsprites.bits.safetensors").stat().st_size < 144 * 512 + 200
    meta = images.to("meta")
    assert meta[rows.to("meta")].shape == (144, 1, 64, 64)


def reordered(arrays, order):
    return {name: arrays[name][order] for name in ("imgs", "latents_classes")}


BAD = {
    "shuffled": (lambda a: reordered(a, np.random.default_rng(1).permutation(144)), "in its order"),
    "truncated": (lambda a: reordered(a, slice(100)), r"imgs are uint8 \(100, 64, 64\)"),
    "other classes": (lambda a: {"latents_classes": a["latents_classes"][:, 1:]}, "in its order"),
    "coloured": (lambda a: {"latents_classes": a["latents_classes"] + 1}, "in its order"),
    "smaller": (lambda a: {"imgs": a["imgs"][:, :32, :32]}, r"\(144, 32, 32\)"),
    "float": (lambda a: {"imgs": a["imgs"] / 1.0}, "float64"),
    "grey": (lambda a: {"imgs": a["imgs"] * 255}, "other values than 0 and 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_refuses_another_layout(tmp_path, arrays, case):
    change, expected = BAD[case]
    refused(saved(tmp_path, arrays | change(arrays)), expected)


def refused(source, expected):
    with pytest.raises(UserError, match=expected) as error:
        source()
    assert str(error.value).startswith(str(source.path))
    assert "\n" not in str(error.value)
    assert not list(source.path.parent.glob("*.safetensors"))


def test_refuses_what_is_no_such_file(tmp_path, arrays):
    refused(DSprites(str(tmp_path / "dsprites.npz")), "no such file.*google-deepmind.*data=sprites")
    source = saved(tmp_path, arrays)
    whole = source.path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:-1], b"", bytes(1000)):
        source.path.write_bytes(content)
        refused(source, "damaged, or not the original dSprites")
    np.savez(source.path, train_images=arrays["imgs"])
    refused(source, "damaged, or not the original dSprites")
    source.path.unlink()
    source.path.mkdir()
    refused(source, "cannot be read")
