"""Conversion of stored pixels to model inputs, against exact values and known distributions."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from vaelab.data.pixels import RepeatedNoise, binarize, draw, random_below_255
from vaelab.randomness import seeded_generator

GREY_LEVELS = torch.arange(256).byte()


def draw_grey_levels(kind, copies, seed=0):
    """Returns x of all grey levels 0 to 255, [copies, 256]."""
    images = GREY_LEVELS.expand(copies, 256).contiguous()
    return draw(images, kind, torch.Generator().manual_seed(seed))


def test_draw_binary_samples_bernoulli_with_pixel_as_probability():
    copies = 20_000
    x = draw_grey_levels("binary", copies)
    assert x.dtype == torch.float32
    assert x.unique().tolist() == [0, 1]
    assert not x[:, 0].any()
    assert x[:, 255].all()
    chance = GREY_LEVELS / 255
    error = (chance * (1 - chance) / copies).sqrt()
    assert ((x.mean(0) - chance).abs() <= 5 * error).all()
    pairs = torch.cov(x[:, 100:150].T)  # covariances of different pixels, which are independent
    assert pairs.fill_diagonal_(0).abs().max() < 5 * 0.25 / math.sqrt(copies)


def test_draw_dequantized_is_uniform_within_each_bin():
    copies = 20_000
    x = draw_grey_levels("dequantized", copies)
    assert x.dtype == torch.float32
    assert (x >= 0).all()
    assert (x < 1).all()
    assert (x >= GREY_LEVELS / 256).all()
    assert (x <= (GREY_LEVELS + 1.0) / 256).all()  # equal where float32 rounds up to the edge
    within = x * 256 - GREY_LEVELS
    assert ((within.mean(0) - 0.5).abs() < 5 * math.sqrt(1 / 12 / copies)).all()
    assert (within.var(0) - 1 / 12).abs().max() < 0.01


def test_draw_grey_divides_by_255():
    assert torch.equal(draw_grey_levels("grey", 1)[0], torch.arange(256).float() / 255)


@pytest.mark.parametrize("kind", ["binary", "dequantized", "grey"])
def test_draw_is_a_function_of_the_generator_seed(kind):
    assert torch.equal(draw_grey_levels(kind, 3), draw_grey_levels(kind, 3))
    assert torch.equal(draw_grey_levels(kind, 3), draw_grey_levels(kind, 3, seed=1)) is (
        kind == "grey"
    )


def test_draw_does_not_change_its_input():
    images = GREY_LEVELS.clone()
    for kind in ("binary", "dequantized", "grey"):
        draw(images, kind, torch.Generator())
    assert torch.equal(images, GREY_LEVELS)


def test_binarize_equals_draw_binary():
    images = GREY_LEVELS.repeat(50)
    bits = [
        binarize(images, seeded_generator("a", 1)),
        draw(images, "binary", seeded_generator("a", 1)),
    ]
    assert torch.equal(bits[0].float(), bits[1])
    assert not torch.equal(bits[0], binarize(images, seeded_generator("b", 1)))


@pytest.mark.parametrize("shape", [(1_000_001,), (3, 7), (0,)])
def test_random_below_255_is_uniform_and_excludes_255(shape):
    drawn = random_below_255(shape, seeded_generator("a", 1))
    assert drawn.shape == shape
    assert drawn.dtype == torch.uint8
    counts = np.bincount(drawn.flatten().numpy(), minlength=256)
    assert counts[255] == 0
    if drawn.numel() > 1e6:
        assert chisquare(counts[:255]).pvalue > 1e-3


@pytest.mark.parametrize("count", [100_003, 8000, 7, 0])
def test_repeated_noise_is_that_drawn_at_once(count, monkeypatch):
    monkeypatch.setattr("vaelab.data.pixels.NOISE_BLOCK", 4096)
    generators = [seeded_generator("a", 1) for _ in range(2)]
    expected = random_below_255((count,), generators[0])
    noise = RepeatedNoise(count, generators[1])
    assert torch.equal(generators[0].get_state(), generators[1].get_state())
    pieces = [(start, min(start + 1500, count)) for start in range(0, count, 1500)]
    for start, stop in [*pieces, *pieces[::-7], (0, count)] if count else []:
        assert torch.equal(noise.between(start, stop), expected[start:stop])
