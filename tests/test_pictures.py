"""Pictures: what is in them, for any model and any images."""

import pytest
import torch

from vaelab import pictures

SMALL = ["model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "model.latent_dim=2"]
SIDE = 8


@pytest.fixture
def drawn(build):
    """(channels, count, classes, *overrides) -> the model and all its pictures by name."""

    def draw(channels=1, count=64, classes=3, *overrides):
        shapes = {"x_shape": (channels, SIDE, SIDE), "num_classes": classes}
        model = build(*SMALL, *overrides, **shapes)
        x = torch.rand(count, channels, SIDE, SIDE).round()
        y = torch.eye(classes)[torch.arange(count) % classes] if classes else torch.zeros(count, 0)
        found = pictures.of(model)
        return model, {name: pictures.draw(p, model, x, y) for name, p in found.items()}

    return draw


def cells(grid, padding=2):
    """Rows and columns of a grid."""
    return tuple((side - padding) // (SIDE + padding) for side in grid.shape[1:])


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("count", [1, 5, 64])
@pytest.mark.parametrize("conditional", [True, False])
def test_any_images_can_be_shown(drawn, channels, count, conditional):
    classes = 3 if conditional else 0
    _, grids = drawn(channels, count, classes, f"model.conditional={conditional}")
    expected = {
        "reconstructions": (8, 8),
        "samples": (8, 8),
        "traversals": (2, 11),
        "interpolations": (6, 11),
    }
    if conditional:
        expected["classes"] = (3, 10)
    assert {name: cells(grid) for name, grid in grids.items() if name != "manifold"} == expected
    assert grids["manifold"].shape == (3, 20 * SIDE, 20 * SIDE)
    for grid in grids.values():
        assert len(grid) == 3
        assert grid.min() >= 0
        assert grid.max() <= 1


def test_reconstructions_stand_under_their_images(drawn, build):
    model = build(*SMALL, x_shape=(1, SIDE, SIDE), num_classes=0)
    x, y = torch.rand(8, 1, SIDE, SIDE).round(), torch.zeros(8, 0)
    grid = pictures.draw(pictures.reconstructions, model, x, y)
    assert torch.equal(grid[0, 2 : 2 + SIDE, 2 : 2 + SIDE], x[0, 0])
    below = grid[0, 4 + SIDE : 4 + 2 * SIDE, 2 : 2 + SIDE]
    torch.testing.assert_close(below, model(x, y)[0, 0].detach())


def test_the_first_traversal_is_of_the_latent_with_the_highest_rate(build):
    model = build(*SMALL, x_shape=(1, SIDE, SIDE), num_classes=0)
    model.rate_per_latent = torch.tensor([0.1, 5.0])
    x, y = torch.rand(1, 1, SIDE, SIDE).round(), torch.zeros(1, 0)
    grid = pictures.draw(pictures.traversals, model, x, y)
    z = model.encode(x, y).mean.detach().clone()
    z[0, 1] = -3.0
    expected = model.decode(z, y).mean[0, 0].detach()
    torch.testing.assert_close(grid[0, 2 : 2 + SIDE, 2 : 2 + SIDE], expected)


def test_drawing_leaves_no_trace_and_is_the_same_at_each_call(build):
    model = build(*SMALL, x_shape=(1, SIDE, SIDE), num_classes=0).train()
    x, y = torch.rand(8, 1, SIDE, SIDE), torch.zeros(8, 0)
    before = torch.get_rng_state()
    first = pictures.draw(pictures.samples, model, x, y)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    torch.rand(3)
    assert torch.equal(pictures.draw(pictures.samples, model, x, y), first)


def test_enlarging_repeats_pixels():
    grid = torch.rand(3, 10, 20)
    large = pictures.enlarged(grid, pixels=60)
    assert large.shape == (3, 30, 60)
    assert torch.equal(large[:, ::3, ::3], grid)
