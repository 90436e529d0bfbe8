"""Tests of `vaelab.pictures`: pixels, arrays and names of pictures against calls of the model."""

import json
import math
import os
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from PIL import Image
from torch.distributions import Independent, Normal
from torch.testing import assert_close
from torchvision.utils import make_grid

from vaelab import pictures
from vaelab.errors import UserError
from vaelab.metrics.chunking import PIXELS_PER_CHUNK
from vaelab.pictures import Request, legends
from vaelab.pictures.image_files import read_image
from vaelab.pictures.picture import tiled

SIDE = 8
SMALL_NETWORKS = ["model.encoder.hidden=[16]", "model.decoder.hidden=[16]"]
GRID_KINDS = [name for name in pictures.KINDS if name not in ("latents", "nearest")]


@pytest.fixture
def build_request(build):
    """(*overrides, sizes, **request settings) -> (model, request) with random binary images."""

    def make(*overrides, channels=1, images=40, classes=3, latents=2, **asked):
        shapes = {"x_shape": (channels, SIDE, SIDE), "num_classes": classes}
        model = build(*SMALL_NETWORKS, f"model.latent_dim={latents}", *overrides, **shapes).eval()
        x = torch.rand(images, channels, SIDE, SIDE).round()
        y = torch.eye(classes).repeat(images, 1)[:images] if classes else torch.zeros(images, 0)
        return model, Request(x, y, model.num_classes, **asked)

    return make


@pytest.fixture
def build_conditional_request(build_request):
    """(sizes, **request settings) -> (model, request) of a conditional VAE with random weights.

    The large weights make the prior and the decoder depend on the labels.
    """

    def make(**settings):
        model, request = build_request("model=cvae", "prior=conditional_normal", **settings)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0, 0.5)
        return model, request

    return make


def grey_pixels(picture):
    """Returns the pixels of a grey picture, [H', W'] in 0..255."""
    return np.asarray(picture.image())


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("images", [2, 40])
@pytest.mark.parametrize("model", ["vae", "cvae"])
def test_draw_takes_any_number_of_channels_and_images(build_request, channels, images, model):
    model, request = build_request(f"model={model}", channels=channels, images=images)
    for name in pictures.KINDS:
        if not pictures.obstacle(name, model, request):
            image = pictures.draw(name, model, request).image()
            assert image.mode == "RGB" or (image.mode == "L" and channels < 3)
            assert 400 <= image.width <= 1600
    drawn = pictures.draw_overview(model, request.x, request.y)
    assert len(drawn) == 5 + (model.context_dim > 0)


def test_draw_takes_images_without_labels(build_request):
    model, request = build_request(classes=0)
    names = {name for name in pictures.KINDS if not pictures.obstacle(name, model, request)}
    assert names == set(pictures.KINDS) - {"class_grid", "arithmetic", "nearest"}
    assert pictures.draw("latents", model, request).image().width > 400
    assert pictures.draw("samples", model, request).arrays["y"].shape == (64, 0)


def test_picture_images_are_decoded_from_its_latents_and_labels(build_conditional_request):
    model, request = build_conditional_request()
    for name in GRID_KINDS:
        arrays = pictures.draw(name, model, request).arrays
        z, y = arrays["z"].flatten(0, -2), arrays["y"].flatten(0, -2)
        with torch.no_grad():
            assert_close(arrays["images"].flatten(0, -4), model.image_likelihood(z, y).mean)


def test_pictures_do_not_depend_on_chunk_size(build_conditional_request, monkeypatch):
    model, request = build_conditional_request(images=5)
    whole = {name: pictures.draw(name, model, request).arrays for name in GRID_KINDS}
    monkeypatch.setitem(PIXELS_PER_CHUNK, "cpu", 7 * SIDE * SIDE)
    for name in GRID_KINDS:
        assert_close(pictures.draw(name, model, request).arrays, whole[name])


def test_reconstructions_equal_output_of_model(build_conditional_request):
    model, request = build_conditional_request(images=5)
    picture = pictures.draw("reconstructions", model, request)
    rows = torch.arange(32) % 5
    assert torch.equal(picture.arrays["x"], request.x[rows])
    with torch.no_grad():
        assert_close(
            picture.arrays["images"], model.mean_reconstruction(request.x, request.y)[rows]
        )


def test_reconstruction_is_below_its_image(build_request):
    model, request = build_request()
    picture = pictures.draw("reconstructions", model, request)
    assert picture.rows == ["input", "reconstruction"] * 4
    factor = picture.image().height // (4 * (2 * SIDE + 4) + 3)
    left = picture.image().width - factor * (8 * (SIDE + 3) + 3)
    pixels = grey_pixels(picture)[:, left:][::factor, ::factor] / 255
    second = 3 + SIDE + 3
    above = pixels[3 : 3 + SIDE, second : second + SIDE]
    below = pixels[4 + SIDE : 4 + 2 * SIDE, second : second + SIDE]
    assert np.array_equal(above, picture.arrays["x"][1, 0])
    assert np.abs(below - picture.arrays["images"][1, 0].numpy()).max() <= 0.5 / 255 + 1e-6


def test_class_grid_shows_pixels_of_its_arrays(build_conditional_request):
    picture = pictures.draw("class_grid", *build_conditional_request(labels=(2, 0), count=4))
    image = picture.image()
    factor = image.height // (2 * (SIDE + 1) + 1)
    pixels = grey_pixels(picture)[:, image.width - factor * (4 * (SIDE + 1) + 1) :]
    for row, column, i, j in product(range(2), range(4), range(SIDE), range(SIDE)):
        top, left = (factor * (1 + n * (SIDE + 1) + m) for n, m in ((row, i), (column, j)))
        block = pixels[top : top + factor, left : left + factor]
        assert (block == round(float(picture.arrays["images"][row, column, 0, i, j]) * 255)).all()


@pytest.mark.parametrize(("channels", "seen"), [(1, [0]), (2, [0]), (5, [0, 1, 2])])
def test_grid_shows_first_channels_clamped(channels, seen):
    levels = torch.tensor([-1.0, 0.4, 2.0, 0.5, 0.6])[:channels, None, None]
    image = pictures.Grid({}, levels.expand(1, channels, SIDE, SIDE), gap=0).image()
    corner = np.atleast_1d(np.asarray(image)[0, 0])
    assert corner.tolist() == [[0, 102, 255][channel] for channel in seen]


@pytest.mark.parametrize("name", ["samples", "class_grid"])
def test_samples_at_temperature_zero_are_prior_mean(build_conditional_request, name):
    model, request = build_conditional_request(labels=(1,), temperature=0.0)
    z = pictures.draw(name, model, request).arrays["z"]
    assert torch.equal(z, model.latent_prior(torch.eye(3)[[1]]).mean.expand_as(z))


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_temperature_scales_standard_deviation_of_prior(build_conditional_request, temperature):
    model, request = build_conditional_request(labels=(1,), count=20_000, temperature=temperature)
    z = pictures.draw("samples", model, request).arrays["z"]
    prior = model.latent_prior(torch.eye(3)[[1]])
    assert_close(z.std(0), temperature * prior.stddev[0].detach(), rtol=0.02, atol=0)
    assert_close(z.mean(0), prior.mean[0].detach(), rtol=0, atol=0.03 * float(z.std(0).max()))


def test_requested_labels_alternate(build_conditional_request):
    model, request = build_conditional_request(labels=(2, 0), count=5)
    assert pictures.draw("samples", model, request).arrays["y"].argmax(1).tolist() == [2, 0] * 2 + [
        2
    ]
    arrays = pictures.draw("reconstructions", model, request).arrays
    assert arrays["y"].argmax(1).tolist() == [2, 0, 2, 0, 2]
    assert torch.equal(arrays["x"], request.x[[2, 0, 5, 3, 8]])
    assert pictures.draw("class_grid", model, request).arrays["y"][:, 0].argmax(1).tolist() == [
        2,
        0,
    ]
    assert set(pictures.draw("latents", model, request).arrays["labels"].tolist()) == {0, 2}


def test_class_grid_rows_share_their_noise(build_conditional_request):
    model, request = build_conditional_request(count=4)
    arrays = pictures.draw("class_grid", model, request).arrays
    prior = model.latent_prior(torch.eye(3))
    noise = (arrays["z"] - prior.mean[:, None]) / prior.stddev[:, None]
    assert_close(noise, noise[:1].expand_as(noise))
    assert len(arrays["images"][0].flatten(1).unique(dim=0)) == 4
    assert arrays["labels"].tolist() == [0, 1, 2]


def test_traversal_moves_one_latent_through_posterior_mean(build_conditional_request):
    model, request = build_conditional_request(latents=5, labels=(1,), count=3)
    arrays = pictures.draw("traversal", model, request).arrays
    x, y = request.x[[1]], torch.eye(3)[[1]]
    with torch.no_grad():
        mean, prior = model.latent_posterior(x, y).mean[0], model.latent_prior(y)
        assert_close(arrays["images"][:, 10], model.mean_reconstruction(x, y).expand(3, -1, -1, -1))
    for z, latent in zip(arrays["z"], arrays["latents"], strict=True):
        others = torch.arange(5) != latent
        assert torch.equal(z[:, others], mean[others].expand(21, -1))
        ends = [prior.mean[0, latent] + side * prior.stddev[0, latent] for side in (-3, 3)]
        assert_close(z[[0, 10, 20], latent], torch.stack([ends[0], mean[latent], ends[1]]))


def test_traversal_orders_latents_by_rate(build_conditional_request):
    model, request = build_conditional_request(latents=5)
    arrays = pictures.draw("traversal", model, request).arrays
    with torch.no_grad():
        rates = model.terms(request.x, request.y).rate_per_latent.mean(0)
    assert arrays["latents"].tolist() == rates.argsort(descending=True).tolist()
    assert_close(arrays["rates"], rates.sort(descending=True).values)


def test_traversal_keeps_latent_order_without_rate_per_latent(build_request, monkeypatch):
    model, request = build_request(latents=5, count=5)
    terms = model.terms
    monkeypatch.setattr(model, "terms", lambda *a: TermsWithTotalRate(terms(*a)))
    arrays = pictures.draw("traversal", model, request).arrays
    assert arrays["latents"].tolist() == [0, 1, 2, 3, 4]
    assert "rates" not in arrays


def test_traversal_omits_latents_of_low_rate_and_names_them(build_request):
    model, request = build_request(latents=5)
    with torch.no_grad():
        layer = model.posterior.params  # the first five outputs are the means
        layer.weight[:5] *= torch.tensor([0.0, 9.0, 0.0, 5.0, 0.0])[:, None]
        layer.bias.zero_()
        layer.weight[5:].zero_()
    picture = pictures.draw("traversal", model, request)
    assert set(picture.arrays["latents"].tolist()) == {1, 3}
    assert picture.note == "below 0.05 nats: z0, z2, z4"
    counted = pictures.draw("traversal", model, replace(request, count=4))
    assert len(counted.arrays["latents"]) == 4
    with torch.no_grad():
        layer.weight.zero_()
    collapsed = pictures.draw("traversal", model, request)
    assert len(collapsed.rows) == 1
    assert collapsed.note.count("z") == 4


class TermsWithTotalRate:
    """Fake terms whose `rate_per_latent` [N, 1] is the total rate, not split by latent."""

    def __init__(self, terms):
        self.rate_per_latent = terms.rate[:, None]


def test_interpolation_ends_at_reconstructions(build_conditional_request):
    model, request = build_conditional_request(count=3)
    arrays = pictures.draw("interpolation", model, request).arrays
    with torch.no_grad():
        whole = model.mean_reconstruction(request.x[:6], request.y[:6])
        means = model.latent_posterior(request.x[:6], request.y[:6]).mean
    assert_close(arrays["images"][:, 0], whole[::2])
    assert_close(arrays["images"][:, -1], whole[1::2])
    assert_close(arrays["z"][:, 5], 0.75 * means[::2] + 0.25 * means[1::2])
    assert_close(arrays["y"][:, 5], 0.75 * request.y[:6:2] + 0.25 * request.y[1:6:2])
    assert torch.equal(arrays["x"].flatten(0, 1), request.x[:6])


def test_grid_shows_every_second_step_of_line(build_conditional_request):
    model, request = build_conditional_request()
    line, moved, latent = (
        pictures.draw(name, model, request) for name in ("interpolation", "arithmetic", "traversal")
    )
    start, *steps, end = line.cells.unbind(1)
    assert torch.equal(torch.stack([start, end], 1), line.arrays["x"])
    assert torch.equal(torch.stack(steps, 1), line.arrays["images"][:, ::2])
    assert torch.equal(moved.cells[:, :1], moved.arrays["x"])
    assert torch.equal(moved.cells[:, 1:], moved.arrays["images"][:, ::2])
    assert torch.equal(latent.cells, latent.arrays["images"][:, ::2])
    for picture in (line, moved, latent):
        assert len(picture.heads) == picture.cells.shape[1]


def test_interpolation_between_given_images(build_conditional_request):
    ends = torch.rand(2, 1, SIDE, SIDE).round()
    model, request = build_conditional_request(ends=ends, labels=(2, 1))
    arrays = pictures.draw("interpolation", model, request).arrays
    with torch.no_grad():
        assert_close(
            arrays["images"][0, [0, -1]], model.mean_reconstruction(ends, torch.eye(3)[[2, 1]])
        )
    assert torch.equal(arrays["x"][0], ends)


@pytest.mark.parametrize("kind", ["build_request", "build_conditional_request"])
def test_arithmetic_adds_difference_of_class_means(request, kind):
    model, asked = request.getfixturevalue(kind)(labels=(2, 0), count=3)
    arrays = pictures.draw("arithmetic", model, asked).arrays
    of = {label: asked.x[asked.y[:, label] == 1] for label in (0, 2)}
    y = torch.eye(3)
    with torch.no_grad():
        means = {
            n: model.latent_posterior(x, y[[n]].expand(len(x), -1)).mean for n, x in of.items()
        }
        assert_close(
            arrays["images"][:, 0], model.mean_reconstruction(of[2][:3], y[[2]].expand(3, -1))
        )
    shift = means[0].mean(0) - means[2].mean(0)
    assert_close(arrays["z"][:, -1], means[2][:3] + shift)
    assert_close(arrays["z"][:, 5], means[2][:3] + 0.25 * shift)
    assert_close(arrays["y"][0, [0, -1]], y[[2, 0], : model.context_dim])


def test_manifold_latents_are_quantiles_of_prior(build_conditional_request):
    from scipy.stats import norm

    model, request = build_conditional_request(labels=(2,), count=4)
    z = pictures.draw("manifold", model, request).arrays["z"].double()
    prior = model.latent_prior(torch.eye(3)[[2]])
    share = norm(prior.mean[0].tolist(), prior.stddev[0].tolist()).cdf(z)
    eighths = [1 / 8, 3 / 8, 5 / 8, 7 / 8]
    assert share[..., 0] == pytest.approx(np.tile(eighths, (4, 1)), abs=1e-5)  # to the right
    assert share[..., 1] == pytest.approx(np.tile(eighths[::-1], (4, 1)).T, abs=1e-5)  # upwards


def test_latents_scatter_shows_posterior_means_of_two_latents(build_conditional_request):
    model, request = build_conditional_request()
    picture = pictures.draw("latents", model, request)
    with torch.no_grad():
        assert_close(picture.arrays["points"], model.latent_posterior(request.x, request.y).mean)
    assert (picture.across, picture.up) == ("z0", "z1")
    assert picture.arrays["labels"].tolist() == request.y.argmax(1).tolist()


def test_latents_scatter_colours_points_by_class(build_conditional_request):
    blue, orange = (31, 119, 180), (255, 127, 14)
    for label, present, absent in ((0, blue, orange), (1, orange, blue)):
        image = pictures.draw("latents", *build_conditional_request(labels=(label,))).image()
        colours = {colour for _, colour in image.getcolors(2**20)}
        assert present in colours
        assert absent not in colours


def test_latents_scatter_shows_principal_components_of_many_latents(build_conditional_request):
    model, request = build_conditional_request(latents=6)
    picture = pictures.draw("latents", model, request)
    with torch.no_grad():
        z = model.latent_posterior(request.x, request.y).mean.double()
    _, s, v = torch.linalg.svd(z - z.mean(0), full_matrices=False)
    expected = ((z - z.mean(0)) @ v[:2].T).abs()
    assert_close(picture.arrays["points"].abs().double(), expected, rtol=1e-4, atol=1e-5)
    share = s[0] ** 2 / s.square().sum()
    assert picture.across == f"principal component 1 of z, {share:.0%} of its variance"


@pytest.mark.parametrize(("count", "columns"), [(3, 3), (8, 8), (13, 8), (64, 8), (100, 10)])
def test_samples_grid_has_expected_rows_and_columns(build_request, count, columns):
    image = pictures.draw("samples", *build_request(count=count)).image()
    rows = -(-count // columns)
    assert image.height * (columns * (SIDE + 1) + 1) == image.width * (rows * (SIDE + 1) + 1)


def test_draw_is_repeatable_and_restores_mode_and_random_state(build_request):
    model, request = build_request()
    model.train()
    before = torch.get_rng_state()
    first = {name: pictures.draw(name, model, request) for name in ("samples", "traversal")}
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    torch.rand(3)
    for name, picture in first.items():
        assert_close(pictures.draw(name, model, request).arrays, picture.arrays, rtol=0, atol=0)
    other = pictures.draw("samples", model, request, seed=1)
    assert not (other.arrays["z"] == first["samples"].arrays["z"]).any()
    assert not any(array.requires_grad for array in first["traversal"].arrays.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["traversal", "interpolation", "arithmetic"])
def test_gif_plays_forwards_and_backwards(build_conditional_request, tmp_path, name):
    picture = pictures.draw(name, *build_conditional_request())
    png, npz, gif = picture.save(tmp_path / name, {"seed": 3})
    assert [path.name for path in (png, npz, gif)] == [f"{name}.{s}" for s in ("png", "npz", "gif")]
    with Image.open(gif) as film:
        assert film.n_frames == 40
        frames = []
        for number in range(40):
            film.seek(number)
            frames.append(np.asarray(film.convert("L")).astype(int))
    assert all(np.abs(frames[i] - frames[40 - i]).max() < 8 for i in range(1, 20))
    wide = min(8, len(picture.arrays["images"])) * (SIDE + 1) + 1
    factor = frames[0].shape[1] // wide
    cell = frames[20][factor : factor * (SIDE + 1) : factor, factor : factor * (SIDE + 1) : factor]
    expected = picture.arrays["images"][0, 20, 0].numpy() * 255
    assert np.abs(cell - expected).max() < 8


def test_save_writes_image_arrays_and_settings(build_conditional_request, tmp_path):
    picture = pictures.draw("samples", *build_conditional_request())
    png, npz = picture.save(tmp_path / "samples", {"seed": 3, "run": "here"})
    with np.load(npz, allow_pickle=False) as file:
        assert json.loads(str(file["settings"])) == {"seed": 3, "run": "here"}
        assert set(file) == {"images", "z", "y", "settings"}
        for name, values in picture.arrays.items():
            assert np.array_equal(file[name], values)
    with Image.open(png) as image:
        assert np.array_equal(np.asarray(image), np.asarray(picture.image()))


def test_read_image_crops_and_converts_to_shape(tmp_path):
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = [250, 100, 0]  # the middle is kept
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    colour = read_image(tmp_path / "wide.png", (3, 10, 10))
    assert colour.dtype == torch.uint8
    assert colour[:, 2:8, 2:8].flatten(1).unique(dim=1).flatten().tolist() == [250, 100, 0]
    grey = read_image(tmp_path / "wide.png", (1, 10, 8))
    assert grey.shape == (1, 10, 8)
    assert abs(int(grey[0, 5, 4]) - round(0.299 * 250 + 0.587 * 100)) <= 1


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_read_image_refuses_what_is_no_file_without_opening_it(tmp_path, kind):
    path = tmp_path / "a.png"
    {"pipe": os.mkfifo, "folder": os.mkdir, "device": lambda p: p.symlink_to("/dev/zero")}[kind](
        path
    )
    with pytest.raises(UserError, match=f"images={path}: cannot be read .a {kind}, not a file"):
        read_image(path, (1, SIDE, SIDE))


def test_read_image_applies_exif_orientation(tmp_path):
    pixels = np.zeros((SIDE, SIDE), np.uint8)
    pixels[:2] = 255
    exif = Image.Exif()
    exif[274] = 6  # the first row of the file is the right side of the image
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    upright = read_image(tmp_path / "turned.png", (1, SIDE, SIDE))[0]
    assert np.array_equal(upright, np.rot90(pixels, -1))


def test_enlarged_grid_repeats_pixels(build_request):
    picture = replace(
        pictures.draw("manifold", *build_request(count=5)), rows=(), heads=(), note=""
    )
    image = np.asarray(picture.image())
    factor = len(image) // (5 * SIDE)
    assert factor > 1
    assert np.array_equal(image, image[::factor, ::factor].repeat(factor, 0).repeat(factor, 1))


def test_nearest_shows_nearest_training_image_of_each_sample(build_request):
    model, request = build_request(count=5)
    samples = pictures.draw("samples", model, request).arrays["images"]
    others = torch.rand(20, 1, SIDE, SIDE)
    pool = [others, samples.flip(0) + 0.01]  # the second chunk is close to the samples
    request = replace(request, training=lambda: iter(pool))
    found = pictures.draw("nearest", model, request).arrays
    assert_close(found["images"], samples)
    assert_close(found["nearest"], samples + 0.01)
    assert_close(found["distances"], torch.full((5,), 0.01 * SIDE))


def test_nearest_needs_training_images(build_request):
    assert "training images" in pictures.obstacle("nearest", *build_request())


def test_gaps_are_far_from_all_codes(build_request):
    """The codes lie on a ring, so gaps are inside of it or far outside."""
    model, request = build_request(images=200)
    angle = torch.linspace(0, math.tau, 200)
    ring = torch.stack([10 * angle.cos(), 0.1 * angle.sin()], 1)
    model.latent_posterior = lambda x, y: Independent(
        Normal(ring[: len(x)], torch.ones(len(x), 2)), 1
    )
    found = pictures.draw("gaps", model, replace(request, count=5)).arrays
    assert found["z"].shape == (5, 2)
    units = torch.cdist(found["z"] / ring.std(0), ring / ring.std(0))
    assert_close(found["distances"], units.min(1).values, rtol=1e-4, atol=1e-5)
    assert (found["distances"] > 0.9).all()
    nearest = model.image_likelihood(ring[units.argmin(1)], found["y"]).mean
    assert_close(found["nearest"], nearest)


@pytest.mark.parametrize(("count", "channels", "columns", "gap"), [(5, 1, 3, 1), (4, 3, 2, 0)])
def test_tiled_agrees_with_torchvision_make_grid(count, channels, columns, gap):
    x = torch.rand(count, channels, 2, 3)
    grid = make_grid(x, nrow=columns, padding=gap, pad_value=1.0).mul(255).round().byte()
    pixels = np.asarray(tiled(x, columns, gap).convert("RGB"))
    assert np.array_equal(pixels, grid.permute(1, 2, 0).numpy())


def test_tiled_fills_cells_without_images_with_white():
    pixels = np.asarray(tiled(torch.zeros(1, 1, 2, 3), 2, rows=2))
    assert pixels.shape == (4, 6)
    assert not pixels[:2, :3].any()
    assert (pixels[2:] == 255).all()
    assert (pixels[:, 3:] == 255).all()


def test_class_grid_names_shared_conditions_of_rows_and_columns(compose):
    cfg = compose(*SMALL_NETWORKS, "model=cvae", "condition=continuous")
    shapes = {"x_shape": (1, SIDE, SIDE), "classes": {"kind": 2, "hue": 3}, "numbers": {"size": 1}}
    shapes["class_names"] = {"kind": ["cat", "dog"], "hue": ["red", "green", "blue"]}
    model = instantiate(cfg.model, pixels="binary", _convert_="all", **shapes).eval()
    y = torch.tensor([[1.0, 0, 0, 1, 0, 0.25], [0, 1, 1, 0, 0, 0.5]])
    request = Request(torch.rand(2, 1, SIDE, SIDE), y, model.num_classes, count=2)
    picture = pictures.draw("class_grid", model, request)
    assert picture.rows == ["kind cat", "kind dog"]
    assert picture.heads == ["hue green\nsize 0.25", "hue red\nsize 0.5"]
    samples = pictures.draw("samples", model, request)
    assert samples.captions == ["cat", "dog"]
    assert samples.note.endswith("kind cat, hue green, size 0.25")


def test_interpolation_and_arithmetic_are_named_by_class(build_conditional_request):
    model, request = build_conditional_request(count=2)
    model.class_names = {"label": ["cat", "dog", "cow"]}
    assert pictures.draw("interpolation", model, request).rows == ["cat to dog", "cow to cat"]
    note = pictures.draw("arithmetic", model, replace(request, labels=(2, 0))).note
    assert note == "images of cow, with the mean latents of cat minus those of cow added"


def test_manifold_axes_are_labelled_by_prior_quantiles(build_request):
    picture = pictures.draw("manifold", *build_request(count=3))
    assert picture.heads == ["-0.97", "0.00", "0.97"]  # quantiles 1/6, 1/2 and 5/6
    assert picture.rows == ["0.97", "0.00", "-0.97"]
    assert picture.note.startswith("z0 to the right and z1 upwards")


@pytest.mark.parametrize("rows", [2, 10, 16])
@pytest.mark.parametrize("names", ["rows", "heads", "both"])
def test_card_font_size_is_legible_on_tensorboard_card(rows, names):
    """TensorBoard fits a picture into 415 x 213 pixels; letters should have about 10 there."""
    cells = torch.zeros(rows, 11, 1, 28, 28)
    picture = pictures.Grid(
        {},
        cells,
        [f"z{i}: 1.00 nats" for i in range(rows)] if names != "heads" else (),
        ["image", *[""] * 9, "image"] if names != "rows" else (),
    )
    grid = replace(picture, rows=(), heads=()).image(card=True)
    whole = picture.image(card=True)
    letters = legends.card_font_size(grid, picture.rows, picture.heads, "")
    assert letters * min(415 / whole.width, 213 / whole.height) >= 9.5
    assert whole.width <= 2 * grid.width


def test_non_overlapping_keeps_every_nth_name():
    names = [(10.0 * i, str(i)) for i in range(8)]
    assert [n for _, n in legends.non_overlapping(names, [9.0] * 8)] == [str(i) for i in range(8)]
    assert [n for _, n in legends.non_overlapping(names, [11.0] * 8)] == ["0", "2", "4", "6"]
    assert [n for _, n in legends.non_overlapping(names, [29.0] * 8)] == ["0", "3", "6"]
