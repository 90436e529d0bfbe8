"""Images to be completed from some of their quadrants."""

import pytest
import torch
from torch.testing import assert_close

from vaelab.conditions import Continuous
from vaelab.data import Images, Quadrants
from vaelab.data.quadrants import known_mask


@pytest.fixture
def source(tmp_path):
    """Returns a function of `known`: the source of 20 random images 8 x 9, 5 of them for test."""
    images = torch.randint(1, 256, (20, 1, 8, 9), dtype=torch.uint8)
    labels = torch.arange(20) % 3
    arrays = {"train_images": images[:15], "train_labels": labels[:15]}
    arrays |= {"test_images": images[15:], "test_labels": labels[15:]}

    class Source(Quadrants):
        def make_arrays(self):
            return {name: array.numpy() for name, array in arrays.items()}

    def build_source(known):
        settings = {"name": "MNIST", "folder": str(tmp_path), "file": "own.safetensors"}
        return Source(known=known, **settings, by_hand=""), images

    return build_source


@pytest.mark.parametrize(
    ("known", "rows"),
    [
        (1, ["....", "....", "##..", "##.."]),
        (2, ["##..", "##..", "##..", "##.."]),
        (3, ["####", "####", "##..", "##.."]),
    ],
)
def test_known_quadrants(known, rows):
    expected = torch.tensor([[letter == "#" for letter in row] for row in rows])
    assert torch.equal(known_mask((4, 4), known), expected)


@pytest.mark.parametrize(("known", "width"), [(1, 16), (2, 32), (3, 52)])
def test_images_and_known_pixels_are_the_whole(source, known, width):
    made, images = source(known)
    splits, mask = made(), known_mask((8, 9), known)
    for part, whole in (("train", images[:15]), ("test", images[15:])):
        column = getattr(splits.columns["known"], part)
        assert column.shape == (len(whole), width)
        again = splits.parts[part].clone()
        assert not again[..., mask].any()
        again[..., mask] = (column * 255).round().to(torch.uint8).view(len(whole), 1, -1)
        assert torch.equal(again, whole)


def test_batches_have_the_known_pixels_of_their_images(source):
    made, images = source(2)
    data = Images(source=made, batch_size=5, val_size=5, pixels="grey", numbers=True)
    assert data.shapes["numbers"] == {"known": 32}
    assert data.shapes["classes"] == {}
    mask = known_mask((8, 9), 2)
    seen = 0
    for part in ("train", "val", "test"):
        for x, y in data.batches(part):
            whole = x.clone()
            whole[..., mask] = y[:, None]
            distance = (whole.flatten(1)[:, None] - images.flatten(1) / 255).abs().amax(2)
            assert (distance.amin(1) < 1e-6).all()
            seen += len(x)
    assert seen == 20


def test_continuous_condition_passes_numbers_on_unless_it_standardizes():
    y = torch.rand(7, 4)

    class Data:
        rows = {"train": torch.arange(7)}  # noqa: RUF012

        def labels(self, part):
            return y

    plain, scaled = (Continuous({}, {"known": 4}, standardize=s) for s in (False, True))
    plain.initialise(Data())
    scaled.initialise(Data())
    assert torch.equal(plain(y), y)
    assert_close(scaled(y).mean(0), torch.zeros(4), atol=1e-6, rtol=0)
