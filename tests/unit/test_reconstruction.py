"""`reconstruction_quality` and `ssim` against exact values and an SSIM by SciPy."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d
from torch.testing import assert_close

from vaelab.evaluation import reconstruction
from vaelab.metrics.reconstruction import reconstruction_quality, ssim


def quality_of_images(images, x):
    """Returns `reconstruction_quality` of x, [B, C, H, W], as if a model returned `images`."""
    model = SimpleNamespace(mean_reconstruction=lambda x, y: images)
    return reconstruction_quality(model, x, torch.zeros(len(x), 0))


def test_mse_and_psnr_of_each_image_are_exact():
    x = torch.zeros(3, 2, 8, 8)
    images = torch.stack([torch.full((2, 8, 8), value) for value in (0.1, -0.5, 2.0)])
    images[0, 1] = 0.3
    found = quality_of_images(images, x)
    mse = [0.05, 0.25, 4.0]
    assert found["mse"].tolist() == pytest.approx(mse)
    assert found["psnr"].tolist() == pytest.approx([-10 * math.log10(m) for m in mse])


def test_exact_reconstruction_has_zero_mse_infinite_psnr_unit_ssim():
    x = torch.rand(3, 1, 28, 28)
    found = quality_of_images(x.clone(), x)
    assert found["mse"].tolist() == [0, 0, 0]
    assert found["psnr"].tolist() == [math.inf] * 3
    assert_close(found["ssim"], torch.ones(3))


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (2, 9), (9, 1)])
def test_images_with_a_side_below_three_pixels_have_all_but_ssim(shape):
    x = torch.zeros(3, 1, *shape)
    found = quality_of_images(x + 0.1, x)
    assert found.keys() == {"mse", "psnr"}
    assert_close(found["mse"], torch.full((3,), 0.01))
    subject = SimpleNamespace(
        model=SimpleNamespace(x_shape=x.shape[1:], mean_reconstruction=lambda x, y: x + 0.1),
        test_batches=lambda description: [(x, torch.zeros(3, 0))],
    )
    measured = reconstruction(subject)
    assert measured["psnr"]["value"] == pytest.approx(20)
    assert measured["ssim"]["value"] is None
    assert (
        measured["ssim"]["reason"]
        == f"its windows take 3 pixels a side, and these have {min(shape)}"
    )


def ssim_by_scipy(a, b, size):
    """Returns the SSIM of images a and b, [C, H, W], with a window of `size` pixels per side.

    Wang et al. (2004), equation 13; the mean is over the places where the window fits.
    """
    offsets = np.arange(size) - size // 2
    row = np.exp(-0.5 * (offsets / (0.15 * (size - 1))) ** 2)  # sigma is 1.5 for 11
    window = np.outer(row, row) / row.sum() ** 2

    def smooth(image):
        return convolve2d(image, window, mode="valid")

    values = []
    for a_, b_ in zip(a, b, strict=True):
        mu_a, mu_b = smooth(a_), smooth(b_)
        var_a, var_b = smooth(a_**2) - mu_a**2, smooth(b_**2) - mu_b**2
        covariance = smooth(a_ * b_) - mu_a * mu_b
        top = (2 * mu_a * mu_b + 0.01**2) * (2 * covariance + 0.03**2)
        bottom = (mu_a**2 + mu_b**2 + 0.01**2) * (var_a + var_b + 0.03**2)
        values.append((top / bottom).mean())
    return np.mean(values)


@pytest.mark.parametrize(
    ("shape", "size"),
    [((1, 28, 28), 11), ((3, 32, 20), 11), ((1, 11, 11), 11), ((1, 8, 8), 7), ((2, 9, 30), 9)],
)
def test_ssim_matches_formula_of_wang_et_al(shape, size):
    x = 0.1 + 0.8 * torch.rand(4, *shape).round().double()
    images = (0.6 * x + 0.3 * torch.rand(4, *shape)).double()
    expected = [ssim_by_scipy(a, b, size) for a, b in zip(images.numpy(), x.numpy(), strict=True)]
    assert ssim(images, x).tolist() == pytest.approx(expected, abs=1e-9)
    assert ssim(images.float(), x.float()).tolist() == pytest.approx(expected, abs=1e-4)


def test_ssim_is_high_for_brighter_and_low_for_shuffled_pixels():
    x = torch.rand(1, 1, 28, 28)
    brighter, shuffled = x + 0.1, x.flatten()[torch.randperm(784)].view_as(x)
    assert ssim(brighter, x) > 0.9
    assert abs(ssim(shuffled, x)) < 0.2


def test_reconstruction_quality_measures_reconstructions_of_cvae(build):
    small = ["model.encoder.hidden=[8]", "model.decoder.hidden=[8]"]
    cvae = build("model=cvae", *small, x_shape=(3, 8, 9), num_classes=4)
    x, y = torch.rand(5, 3, 8, 9).round(), torch.eye(4)[[0, 1, 2, 3, 0]]
    found = reconstruction_quality(cvae, x, y)
    assert_close(found["mse"], (cvae(x, y).detach() - x).square().mean((1, 2, 3)))
    assert found.keys() == {"mse", "psnr", "ssim"}
    assert all(v.shape == (5,) and not v.requires_grad for v in found.values())


def test_ssim_of_bright_images_is_exact_in_single_precision():
    x = torch.full((1, 1, 16, 16), 0.9)
    x[..., 8:] = 1.0
    images = x + 1e-4 * torch.sin(torch.arange(256.0)).reshape(1, 1, 16, 16)
    assert_close(ssim(images, x).double(), ssim(images.double(), x.double()), atol=1e-6, rtol=0)
