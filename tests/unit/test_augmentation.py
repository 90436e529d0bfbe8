"""Flips and shifts of training images, against a slow computation, and in the data module."""

from contextlib import nullcontext

import pytest
import torch
from support.numbered_images import build_data_module, numbered_splits

from vaelab.data import Sprites
from vaelab.data.augmentation import flip_and_shift
from vaelab.errors import UserError
from vaelab.randomness import seeded_generator


def moved(image, mirrored, down, right):
    """Returns an image [C, H, W] mirrored, then moved, pixel by pixel."""
    _, height, width = image.shape
    found = torch.empty_like(image)
    for i in range(height):
        for j in range(width):
            row = min(max(i - down, 0), height - 1)
            column = min(max(j - right, 0), width - 1)
            found[:, i, j] = image[:, row, width - 1 - column if mirrored else column]
    return found


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shift", [0, 1, 3])
@pytest.mark.parametrize("shape", [(1, 8, 9), (3, 9, 7)])
def test_each_image_is_one_of_its_moved_copies_and_all_occur(flip, shift, shape):
    image = torch.randperm(shape[0] * shape[1] * shape[2]).byte().view(shape)
    images = image.expand(2000, *shape)
    found = flip_and_shift(images, seeded_generator("x"), flip=flip, shift=shift)
    assert found.dtype == torch.uint8
    ways = range(-shift, shift + 1)
    possible = [
        moved(image, mirrored, down, right)
        for mirrored in ([False, True] if flip else [False])
        for down in ways
        for right in ways
    ]
    counts = [int((found == copy).flatten(1).all(1).sum()) for copy in possible]
    assert sum(counts) == 2000
    expected = 2000 / len(possible)
    assert all(abs(count - expected) < 6 * expected**0.5 for count in counts if len(counts) > 1)


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ({"shift": 2, "columns": ["shape", "position_x"]}, "data.shift=2: changes position_x of"),
        (
            {"shift": 1, "numbers": True},
            "data.shift=1: changes position_x and position_y of images",
        ),
        (
            {"flip": True, "columns": ["orientation"]},
            "data.flip=true: changes orientation of image",
        ),
        (
            {"flip": True, "columns": ["position_x"], "numbers": True},
            "data.flip=true: changes posi",
        ),
        ({"flip": True, "columns": ["position_y", "scale"]}, None),
        ({"shift": 1, "columns": ["orientation", "scale"]}, None),
        ({"flip": True, "shift": 1}, None),
        ({"columns": ["orientation", "position_x"]}, None),
    ],
)
def test_move_of_what_a_condition_is_told_is_refused(settings, refused):
    source = Sprites(size=16, scales=2, orientations=4, positions=3)
    expected = pytest.raises(UserError, match=refused) if refused else nullcontext()
    with expected:
        build_data_module(source, val_size=5, test_size=5, **settings).check_training_draw()


def epoch_images(data, epoch=0):
    """Returns x and y of all training batches of an epoch."""
    data.train.set_epoch(epoch)
    x, y = zip(*data.train, strict=True)
    return torch.cat(x), torch.cat(y)


def build(**changes):
    """Returns a data module of 50 numbered images, the same at each call."""
    torch.manual_seed(0)
    splits = numbered_splits()
    return build_data_module(lambda: splits, **changes)


@pytest.mark.parametrize("pixels", ["binary", "dequantized", "grey"])
def test_training_images_are_moved_before_their_noise_is_drawn(pixels):
    plain, changed = build(pixels=pixels), build(pixels=pixels, flip=True, shift=2)
    (x, y), (x_plain, y_plain) = epoch_images(changed), epoch_images(plain)
    assert torch.equal(y, y_plain)
    assert not torch.equal(x, x_plain)
    if pixels == "grey":  # the same order, and every image is a moved copy
        for image, before in zip(x, x_plain, strict=True):
            ways = [(m, i, j) for m in (0, 1) for i in range(-2, 3) for j in range(-2, 3)]
            assert any(torch.equal(moved(before, *way), image) for way in ways)


def test_each_epoch_moves_images_in_another_way_and_a_repetition_in_the_same():
    data, again = build(flip=True, shift=2), build(flip=True, shift=2)
    first, second = epoch_images(data)[0], epoch_images(data, 1)[0]
    assert not torch.equal(
        first.flatten(1).sum(1).sort().values, second.flatten(1).sum(1).sort().values
    )
    assert torch.equal(epoch_images(again, 1)[0], second)
    assert torch.equal(epoch_images(again)[0], first)
    assert not torch.equal(epoch_images(build(flip=True, shift=2, seed=1))[0], first)


def test_validation_and_test_images_are_not_moved():
    plain, changed = (build(test_size=5, **c) for c in ({}, {"flip": True, "shift": 2}))
    for part in ("val", "test"):
        for (x, y), (x_plain, y_plain) in zip(
            getattr(changed, part), getattr(plain, part), strict=True
        ):
            assert torch.equal(x, x_plain)
            assert torch.equal(y, y_plain)


def test_shares_of_processes_have_the_moves_of_one():
    alone, *shares = (build(flip=True, shift=2) for _ in range(3))
    for rank, share in enumerate(shares):
        share.train.rank, share.train.world_size = rank, 2
    for whole, *parts in zip(alone.train, *(share.train for share in shares), strict=True):
        assert torch.equal(torch.cat([x for x, _ in parts]), whole[0])


def test_shift_over_the_whole_image_is_refused():
    with pytest.raises(UserError, match=r"data\.shift=8: the images have 8 x 8 pixels"):
        build(shift=8)
