"""Images of known factors: the `Factors` grid, drawn `Sprites`, and the `DSprites` file.

Sprites are compared with polygons by matplotlib, and the grid with numpy and the original's order.
"""

import math
import sys

import numpy as np
import pytest
import torch
from matplotlib.path import Path as Outline
from safetensors.numpy import save_file
from support.numbered_images import build_data_module

from vaelab.commands import train
from vaelab.data import DSprites, Sprites
from vaelab.data.batches import Batches
from vaelab.data.factors import Factors
from vaelab.data.sprites import CHUNK, NAMES
from vaelab.errors import UserError
from vaelab.runs import validation

SQUARE, ELLIPSE, HEART = range(3)
DSPRITES_GRID = (64, 6, 40, 32)  # size in pixels, numbers of scales, orientations, positions
SMALL_GRID = Factors(("a", "b", "c"), (3, 4, 5))


# Factors.


def test_factors_rows_and_values_match_numpy_unravel_index():
    rows = torch.randperm(60)
    factors = torch.from_numpy(np.stack(np.unravel_index(rows.numpy(), SMALL_GRID.sizes), -1))
    assert SMALL_GRID.num_images == 60
    assert torch.equal(SMALL_GRID.values_at(rows), factors)
    assert torch.equal(SMALL_GRID.rows(factors), rows)


def test_factors_rows_match_the_order_of_the_dsprites_file():
    """The expected rows are latents_classes times the bases in the notebook of its authors."""
    sizes = np.array([1, 3, 6, 40, 32, 32])
    bases = np.concatenate((sizes[::-1].cumprod()[::-1][1:], [1]))
    classes = np.random.default_rng(0).integers(0, sizes, (1000, 6))
    found = DSprites.factors.rows(torch.from_numpy(classes[:, 1:]))
    assert torch.equal(found, torch.from_numpy(classes @ bases))
    assert DSprites.factors.num_images == 737_280


def test_factors_sample_is_uniform_over_the_grid():
    count = 60_000
    factors = SMALL_GRID.sample(count, torch.Generator().manual_seed(0))
    assert torch.equal(factors, SMALL_GRID.sample(count, torch.Generator().manual_seed(0)))
    seen = SMALL_GRID.rows(factors).bincount(minlength=60)
    assert len(seen) == 60
    assert (seen - count / 60).abs().max() < 5 * math.sqrt(count / 60)


# Sprites.


def draw_sprites(factors, grid=DSPRITES_GRID):
    """Draws the sprites of factor values [..., 5]; returns bool [..., H, W]."""
    splits, factors = Sprites(*grid)(), torch.as_tensor(factors)
    images = splits.train_images[splits.factors.rows(factors.reshape(-1, 5))]
    return images.reshape(*factors.shape[:-1], *images.shape[2:]) == 255


def draw_whole_grid(*grid):
    """Draws a whole grid; returns bool [3, scales, orientations, positions, positions, H, W]."""
    splits = Sprites(*grid)()
    images = splits.train_images[torch.arange(splits.factors.num_images)]
    return images.reshape(*splits.factors.sizes, *images.shape[2:]) == 255


def test_sprites_has_one_image_per_factor_combination():
    splits = Sprites(*DSPRITES_GRID)()
    assert splits.factors == DSprites.factors
    assert splits.train_images.shape == (737_280, 1, 64, 64)
    assert len(splits.train_images) == len(splits.train_labels) == 737_280
    assert splits.test_images.shape == (0, 1, 64, 64)
    assert len(splits.test_labels) == 0
    images = splits.train_images[torch.arange(0, 737_280, 211)]
    assert images.unique().tolist() == [0, 255]
    # The mean pixel of the original file.
    assert images.double().mean().item() / 255 == pytest.approx(0.042494, rel=0.01)


def test_sprites_label_is_the_shape():
    splits = Sprites(16, 2, 3, 4)()
    factors = splits.factors.values_at(torch.arange(splits.factors.num_images))
    assert splits.num_classes == 3
    assert torch.equal(splits.train_labels, factors[:, 0])


def outline(shape, points=2000):
    """Returns a shape's corners (x, y), [n, 2]: area 1, centre of mass at 0, y pointing down."""
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
        corners = corners @ np.array([[1, 1], [-1, 1]]) / np.sqrt(2)  # a square on its tip
    x, y = corners.T
    cross = x * np.roll(y, -1) - np.roll(x, -1) * y  # twice the areas of triangles with 0
    middle = ((corners + np.roll(corners, -1, 0)) * cross[:, None]).sum(0) / 3 / cross.sum()
    return (corners - middle) / math.sqrt(abs(cross.sum()) / 2)


@pytest.mark.parametrize("shape", [SQUARE, ELLIPSE, HEART])
@pytest.mark.parametrize("grid", [DSPRITES_GRID, (32, 3, 10, 16)])
def test_sprites_equal_the_pixels_inside_polygon_outlines(shape, grid):
    size, scales, orientations, positions = grid
    sizes = torch.tensor([scales, orientations, positions, positions])
    factors = torch.cat([torch.full((40, 1), shape), (torch.rand(40, 4) * sizes).long()], 1)
    places = np.stack(np.meshgrid(*[np.arange(size) + 0.5] * 2), -1).reshape(-1, 2)
    side = math.sqrt(0.0718) * size
    for picture, (_, scale, orientation, x, y) in zip(
        draw_sprites(factors, grid), factors.tolist(), strict=True
    ):
        angle = 2 * np.pi * orientation / (orientations - 1)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        centre = size / 4 + np.array([x, y]) * size / 2 / (positions - 1)
        length = side * (0.5 + 0.5 * scale / (scales - 1))
        inside = Outline(outline(shape) @ turn.T * length + centre).contains_points(places)
        assert torch.equal(picture, torch.from_numpy(inside.reshape(size, size)))


def test_sprites_are_distinct_except_first_and_last_orientation():
    found = draw_whole_grid(64, 6, 8, 5)
    assert torch.equal(found[:, :, 0], found[:, :, -1])
    images = found[:, :, :-1].reshape(-1, 64 * 64)
    assert len(np.unique(np.packbits(images.numpy(), axis=1), axis=0)) == len(images)


def test_symmetric_sprites_repeat_within_a_turn():
    quarters = draw_whole_grid(64, 2, 5, 4).transpose(1, 2)  # [shape, orientation, ...]
    same = [[torch.equal(a[0], b) for b in a] for a in quarters]
    assert same[SQUARE] == [True, True, True, True, True]
    assert same[ELLIPSE] == [True, False, True, False, True]
    assert same[HEART] == [True, False, False, False, True]


def test_sprite_area_is_proportional_to_squared_scale():
    areas = draw_whole_grid(64, 6, 12, 4).sum((-2, -1)).double().mean((2, 3, 4))  # [3, scales]
    expected = 0.0718 * 64**2 * torch.linspace(0.5, 1, 6).double().square()
    assert (areas / expected - 1).abs().max() < 0.02


def test_sprite_centre_of_mass_is_its_position():
    found = draw_whole_grid(64, 3, 9, 5).double()
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
def test_sprites_do_not_touch_the_image_border(size):
    """At the extreme positions, where sprites are nearest to it; their areas are complete."""
    found = draw_whole_grid(size, 2, 41, 2)
    border = torch.ones(size, size, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    assert not (found & border).any()
    areas = found[:, -1].sum((-2, -1)).double()
    assert areas.mean().item() == pytest.approx(0.0718 * size**2, rel=0.03)


def test_sprite_images_do_not_depend_on_batch_composition():
    images = Sprites(32, 6, 10, 16)().train_images
    rows = torch.randint(len(images), (CHUNK + 40,))
    together = images[rows]
    assert torch.equal(together, torch.cat([images[row[None]] for row in rows]))
    assert torch.equal(together, images.index_select(0, rows))
    assert images[rows[:0]].shape == (0, 1, 32, 32)


def test_sprite_drawing_needs_no_device_to_host_synchronization():
    """On the meta device, which has no values: reading one raises an error."""
    images = Sprites(*DSPRITES_GRID)().train_images.to("meta")
    assert images.device.type == "meta"
    rows = torch.zeros(300, dtype=torch.int64, device="meta")
    assert images[rows].shape == (300, 1, 64, 64)
    assert images[rows].device.type == "meta"


# Sprites in loaders, the data module and the train command.


@pytest.mark.parametrize("pixels", ["binary", "dequantized"])
@pytest.mark.parametrize("rank", [0, 1])
def test_batches_of_sprites_equal_batches_of_a_tensor(pixels, rank):
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


def test_data_module_of_sprites_keeps_pixels_and_shape_labels():
    """Pixels of 0 and 255 are not random, also with pixels=binary."""
    data = build_data_module(Sprites(16, 2, 3, 3), val_size=20, test_size=20, pixels="binary")
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


SMALL_GRID_OVERRIDES = [
    f"data.source.{name}" for name in ("size=16", "scales=2", "orientations=4", "positions=4")
]


def test_train_command_fits_conditional_model_on_sprites(monkeypatch, tmp_path):
    folder = [f"hydra.run.dir={tmp_path}", "logger=none", "trainer.max_steps=2"]
    sizes = ["data.val_size=50", "data.test_size=50", "data.batch_size=64"]
    overrides = [
        "data=sprites",
        "network=conv",
        "condition=one_hot",
        *SMALL_GRID_OVERRIDES,
        *sizes,
        *folder,
    ]
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
def test_check_config_rejects_invalid_sprite_grid_sizes(compose, override, message):
    cfg = compose("data=sprites", f"data.source.{override}")
    with pytest.raises(UserError, match=message):
        validation.check_config(cfg, train.settings_schema)


# The original file, here with its layout, but a small grid and random pixels.


@pytest.fixture
def dsprites_arrays(monkeypatch):
    """Returns arrays in the layout of dSprites, with 144 images; patches `DSprites.factors`."""
    factors = Factors(NAMES, (3, 2, 3, 2, 4))
    monkeypatch.setattr(DSprites, "factors", factors)
    classes = np.stack(np.unravel_index(np.arange(144), (1, *factors.sizes)), 1)
    return {
        "metadata": np.array({"title": "dSprites dataset"}),  # pickled, so reading it is refused
        "imgs": np.random.default_rng(0).integers(0, 2, (144, 64, 64), dtype=np.uint8),
        "latents_classes": classes,
        "latents_values": classes / 2,
    }


def save_dsprites(folder, arrays):
    """Writes dsprites.npz into a folder; returns the source of it."""
    np.savez_compressed(folder / "dsprites.npz", **arrays)
    return DSprites(str(folder / "dsprites.npz"))


def test_dsprites_reads_original_once_and_caches_packed_bits(tmp_path, dsprites_arrays):
    source = save_dsprites(tmp_path, dsprites_arrays)
    source()
    source.path.unlink()
    splits = source()
    images = splits.train_images
    assert images.shape == (144, 1, 64, 64)
    rows = torch.randperm(144)
    assert torch.equal(images[rows], torch.from_numpy(dsprites_arrays["imgs"])[rows, None] * 255)
    assert torch.equal(splits.train_labels, torch.arange(3).repeat_interleave(48))
    assert splits.factors == DSprites.factors
    assert (tmp_path / "dsprites.bits.safetensors").stat().st_size < 144 * 512 + 200
    bits = tmp_path / "dsprites.bits.safetensors"
    bits.write_bytes(bits.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match=f"{bits}: damaged"):
        source()
    (tmp_path / "dsprites.bits.verified.json").unlink()
    save_file(
        {"train_images": 255 * np.eye(144, 512, dtype=np.uint8).reshape(144, 1, 64, 8)[1:]}, bits
    )
    with pytest.raises(UserError, match=f"{bits}: damaged, or other data: should hold 144 sprites"):
        source()
    blank = np.full((144, 1, 64, 8), 255, np.uint8)
    blank[7] = 0
    (tmp_path / "dsprites.bits.verified.json").unlink()
    save_file({"train_images": blank}, bits)
    with pytest.raises(UserError, match=f"{bits}: damaged"):
        source()
    meta = images.to("meta")
    assert meta[rows.to("meta")].shape == (144, 1, 64, 64)


def select_images(arrays, order):
    """Returns the images and classes with some indices, in their order."""
    return {name: arrays[name][order] for name in ("imgs", "latents_classes")}


INVALID_LAYOUTS = {  # changes of the arrays, and the pattern of the error message
    "shuffled": (
        lambda a: select_images(a, np.random.default_rng(1).permutation(144)),
        "in its order",
    ),
    "truncated": (lambda a: select_images(a, slice(100)), r"imgs are uint8 \(100, 64, 64\)"),
    "missing class column": (
        lambda a: {"latents_classes": a["latents_classes"][:, 1:]},
        "in its order",
    ),
    "classes counted from 1": (
        lambda a: {"latents_classes": a["latents_classes"] + 1},
        "in its order",
    ),
    "smaller images": (lambda a: {"imgs": a["imgs"][:, :32, :32]}, r"\(144, 32, 32\)"),
    "float pixels": (lambda a: {"imgs": a["imgs"] / 1.0}, "float64"),
    "grey pixels": (lambda a: {"imgs": a["imgs"] * 255}, "other values than 0 and 1"),
}


@pytest.mark.parametrize("case", INVALID_LAYOUTS)
def test_dsprites_rejects_arrays_of_another_layout(tmp_path, dsprites_arrays, case):
    change, expected = INVALID_LAYOUTS[case]
    assert_rejected(save_dsprites(tmp_path, dsprites_arrays | change(dsprites_arrays)), expected)


def assert_rejected(source, expected):
    """Asserts that a source raises a one-line UserError with its path, and writes no file."""
    with pytest.raises(UserError, match=expected) as error:
        source()
    assert str(error.value).startswith(str(source.path))
    assert "\n" not in str(error.value)
    assert not list(source.path.parent.glob("*.safetensors"))


def test_dsprites_rejects_missing_or_damaged_file(tmp_path, dsprites_arrays):
    assert_rejected(
        DSprites(str(tmp_path / "dsprites.npz")), "no such file.*google-deepmind.*data=sprites"
    )
    source = save_dsprites(tmp_path, dsprites_arrays)
    whole = source.path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:-1], b"", bytes(1000)):
        source.path.write_bytes(content)
        assert_rejected(source, "damaged, or not the original dSprites")
    np.savez(source.path, train_images=dsprites_arrays["imgs"])
    assert_rejected(source, "damaged, or not the original dSprites")
    source.path.unlink()
    source.path.mkdir()
    assert_rejected(source, "cannot be read")
