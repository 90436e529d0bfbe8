"""Pictures: what is in them, for any model and any images."""

import json
import math
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
from vaelab.chunking import PIXELS_PER_CHUNK
from vaelab.pictures import Request, legends
from vaelab.pictures.image_files import read_image
from vaelab.pictures.picture import tiled

SIDE = 8
SMALL = ["model.encoder.hidden=[16]", "model.decoder.hidden=[16]"]
GRIDS = [name for name in pictures.KINDS if name not in ("latents", "nearest")]


@pytest.fixture
def subject(build):
    """(*overrides, sizes, what to ask) -> a model and a request."""

    def make(*overrides, channels=1, images=40, classes=3, latents=2, **asked):
        shapes = {"x_shape": (channels, SIDE, SIDE), "num_classes": classes}
        model = build(*SMALL, f"model.latent_dim={latents}", *overrides, **shapes).eval()
        x = torch.rand(images, channels, SIDE, SIDE).round()
        y = torch.eye(classes).repeat(images, 1)[:images] if classes else torch.zeros(images, 0)
        return model, Request(x, y, model.num_classes, **asked)

    return make


@pytest.fixture
def conditional(subject):
    """The same for a conditional model whose labels and prior matter."""

    def make(**settings):
        model, request = subject("model=cvae", "prior=conditional_normal", **settings)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0, 0.5)
        return model, request

    return make


def shown(picture):
    """The pixels of a grey picture, [H', W'] in 0..255."""
    return np.asarray(picture.image())


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("images", [2, 40])
@pytest.mark.parametrize("model", ["vae", "cvae"])
def test_any_images_can_be_shown(subject, channels, images, model):
    model, request = subject(f"model={model}", channels=channels, images=images)
    for name in pictures.KINDS:
        if not pictures.obstacle(name, model, request):
            image = pictures.draw(name, model, request).image()
            assert image.mode == "RGB" or (image.mode == "L" and channels < 3)
            assert 400 <= image.width <= 1600
    drawn = pictures.draw_overview(model, request.x, request.y)
    assert len(drawn) == 5 + (model.context_dim > 0)


def test_images_without_labels_can_be_shown(subject):
    model, request = subject(classes=0)
    names = {name for name in pictures.KINDS if not pictures.obstacle(name, model, request)}
    assert names == set(pictures.KINDS) - {"class_grid", "arithmetic", "nearest"}
    assert pictures.draw("latents", model, request).image().width > 400
    assert pictures.draw("samples", model, request).arrays["y"].shape == (64, 0)


def test_the_images_are_decoded_from_the_latents_and_labels_beside_them(conditional):
    model, request = conditional()
    for name in GRIDS:
        arrays = pictures.draw(name, model, request).arrays
        z, y = arrays["z"].flatten(0, -2), arrays["y"].flatten(0, -2)
        with torch.no_grad():
            assert_close(arrays["images"].flatten(0, -4), model.decode(z, y).mean)


def test_a_portion_at_a_time_is_the_same(conditional, monkeypatch):
    model, request = conditional(images=5)
    whole = {name: pictures.draw(name, model, request).arrays for name in GRIDS}
    monkeypatch.setitem(PIXELS_PER_CHUNK, "cpu", 7 * SIDE * SIDE)
    for name in GRIDS:
        assert_close(pictures.draw(name, model, request).arrays, whole[name])


def test_reconstructions_are_those_of_the_model(conditional):
    model, request = conditional(images=5)
    picture = pictures.draw("reconstructions", model, request)
    rows = torch.arange(32) % 5
    assert torch.equal(picture.arrays["x"], request.x[rows])
    with torch.no_grad():
        assert_close(picture.arrays["images"], model(request.x, request.y)[rows])


def test_a_reconstruction_stands_under_its_image(subject):
    model, request = subject()
    picture = pictures.draw("reconstructions", model, request)
    assert picture.rows == ["input", "reconstruction"] * 4
    factor = picture.image().height // (4 * (2 * SIDE + 4) + 3)
    left = picture.image().width - factor * (8 * (SIDE + 3) + 3)
    pixels = shown(picture)[:, left:][::factor, ::factor] / 255
    second = 3 + SIDE + 3
    above = pixels[3 : 3 + SIDE, second : second + SIDE]
    below = pixels[4 + SIDE : 4 + 2 * SIDE, second : second + SIDE]
    assert np.array_equal(above, picture.arrays["x"][1, 0])
    assert np.abs(below - picture.arrays["images"][1, 0].numpy()).max() <= 0.5 / 255 + 1e-6


def test_a_grid_shows_the_pixels_of_its_arrays(conditional):
    picture = pictures.draw("class_grid", *conditional(labels=(2, 0), count=4))
    image = picture.image()
    factor = image.height // (2 * (SIDE + 1) + 1)
    pixels = shown(picture)[:, image.width - factor * (4 * (SIDE + 1) + 1) :]
    for row, column, i, j in product(range(2), range(4), range(SIDE), range(SIDE)):
        top, left = (factor * (1 + n * (SIDE + 1) + m) for n, m in ((row, i), (column, j)))
        block = pixels[top : top + factor, left : left + factor]
        assert (block == round(float(picture.arrays["images"][row, column, 0, i, j]) * 255)).all()


@pytest.mark.parametrize(("channels", "seen"), [(1, [0]), (2, [0]), (5, [0, 1, 2])])
def test_the_first_channels_are_seen_as_far_as_they_can_be(channels, seen):
    levels = torch.tensor([-1.0, 0.4, 2.0, 0.5, 0.6])[:channels, None, None]
    image = pictures.Grid({}, levels.expand(1, channels, SIDE, SIDE), gap=0).image()
    corner = np.atleast_1d(np.asarray(image)[0, 0])
    assert corner.tolist() == [[0, 102, 255][channel] for channel in seen]


@pytest.mark.parametrize("name", ["samples", "class_grid"])
def test_samples_at_no_temperature_are_the_mean_of_the_prior(conditional, name):
    model, request = conditional(labels=(1,), temperature=0.0)
    z = pictures.draw(name, model, request).arrays["z"]
    assert torch.equal(z, model.latent_prior(torch.eye(3)[[1]]).mean.expand_as(z))


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_temperature_scales_the_deviation_of_the_prior(conditional, temperature):
    model, request = conditional(labels=(1,), count=20_000, temperature=temperature)
    z = pictures.draw("samples", model, request).arrays["z"]
    prior = model.latent_prior(torch.eye(3)[[1]])
    assert_close(z.std(0), temperature * prior.stddev[0].detach(), rtol=0.02, atol=0)
    assert_close(z.mean(0), prior.mean[0].detach(), rtol=0, atol=0.03 * float(z.std(0).max()))


def test_labels_are_drawn_in_turn(conditional):
    model, request = conditional(labels=(2, 0), count=5)
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


def test_the_rows_of_a_class_grid_share_their_noise(conditional):
    model, request = conditional(count=4)
    arrays = pictures.draw("class_grid", model, request).arrays
    prior = model.latent_prior(torch.eye(3))
    noise = (arrays["z"] - prior.mean[:, None]) / prior.stddev[:, None]
    assert_close(noise, noise[:1].expand_as(noise))
    assert len(arrays["images"][0].flatten(1).unique(dim=0)) == 4
    assert arrays["labels"].tolist() == [0, 1, 2]


def test_a_traversal_moves_one_latent_through_the_mean(conditional):
    model, request = conditional(latents=5, labels=(1,), count=3)
    arrays = pictures.draw("traversal", model, request).arrays
    x, y = request.x[[1]], torch.eye(3)[[1]]
    with torch.no_grad():
        mean, prior = model.encode(x, y).mean[0], model.latent_prior(y)
        assert_close(arrays["images"][:, 10], model(x, y).expand(3, -1, -1, -1))
    for z, latent in zip(arrays["z"], arrays["latents"], strict=True):
        others = torch.arange(5) != latent
        assert torch.equal(z[:, others], mean[others].expand(21, -1))
        ends = [prior.mean[0, latent] + side * prior.stddev[0, latent] for side in (-3, 3)]
        assert_close(z[[0, 10, 20], latent], torch.stack([ends[0], mean[latent], ends[1]]))


def test_latents_are_ordered_by_their_rate(conditional):
    model, request = conditional(latents=5)
    arrays = pictures.draw("traversal", model, request).arrays
    with torch.no_grad():
        rates = model.terms(request.x, request.y).rate_per_latent.mean(0)
    assert arrays["latents"].tolist() == rates.argsort(descending=True).tolist()
    assert_close(arrays["rates"], rates.sort(descending=True).values)


def test_latents_keep_their_order_where_the_rate_does_not_split(subject, monkeypatch):
    model, request = subject(latents=5, count=5)
    terms = model.terms
    monkeypatch.setattr(model, "terms", lambda *a: Unsplit(terms(*a)))
    arrays = pictures.draw("traversal", model, request).arrays
    assert arrays["latents"].tolist() == [0, 1, 2, 3, 4]
    assert "rates" not in arrays


def test_latents_that_carry_nothing_are_one_line(subject):
    model, request = subject(latents=5)
    with torch.no_grad():
        layer = model.posterior.params  # its first five are the means
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


class Unsplit:
    def __init__(self, terms):
        self.rate_per_latent = terms.rate[:, None]


def test_an_interpolation_ends_in_the_reconstructions(conditional):
    model, request = conditional(count=3)
    arrays = pictures.draw("interpolation", model, request).arrays
    with torch.no_grad():
        whole = model(request.x[:6], request.y[:6])
        means = model.encode(request.x[:6], request.y[:6]).mean
    assert_close(arrays["images"][:, 0], whole[::2])
    assert_close(arrays["images"][:, -1], whole[1::2])
    assert_close(arrays["z"][:, 5], 0.75 * means[::2] + 0.25 * means[1::2])
    assert_close(arrays["y"][:, 5], 0.75 * request.y[:6:2] + 0.25 * request.y[1:6:2])
    assert torch.equal(arrays["x"].flatten(0, 1), request.x[:6])


def test_a_grid_shows_every_second_step_of_a_line(conditional):
    model, request = conditional()
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


def test_an_interpolation_between_given_images(conditional):
    ends = torch.rand(2, 1, SIDE, SIDE).round()
    model, request = conditional(ends=ends, labels=(2, 1))
    arrays = pictures.draw("interpolation", model, request).arrays
    with torch.no_grad():
        assert_close(arrays["images"][0, [0, -1]], model(ends, torch.eye(3)[[2, 1]]))
    assert torch.equal(arrays["x"][0], ends)


@pytest.mark.parametrize("kind", ["subject", "conditional"])
def test_arithmetic_adds_the_difference_of_two_class_means(request, kind):
    model, asked = request.getfixturevalue(kind)(labels=(2, 0), count=3)
    arrays = pictures.draw("arithmetic", model, asked).arrays
    of = {label: asked.x[asked.y[:, label] == 1] for label in (0, 2)}
    y = torch.eye(3)
    with torch.no_grad():
        means = {n: model.encode(x, y[[n]].expand(len(x), -1)).mean for n, x in of.items()}
        assert_close(arrays["images"][:, 0], model(of[2][:3], y[[2]].expand(3, -1)))
    shift = means[0].mean(0) - means[2].mean(0)
    assert_close(arrays["z"][:, -1], means[2][:3] + shift)
    assert_close(arrays["z"][:, 5], means[2][:3] + 0.25 * shift)
    assert_close(arrays["y"][0, [0, -1]], y[[2, 0], : model.context_dim])


def test_the_manifold_is_at_the_quantiles_of_the_prior(conditional):
    from scipy.stats import norm

    model, request = conditional(labels=(2,), count=4)
    z = pictures.draw("manifold", model, request).arrays["z"].double()
    prior = model.latent_prior(torch.eye(3)[[2]])
    share = norm(prior.mean[0].tolist(), prior.stddev[0].tolist()).cdf(z)
    eighths = [1 / 8, 3 / 8, 5 / 8, 7 / 8]
    assert share[..., 0] == pytest.approx(np.tile(eighths, (4, 1)), abs=1e-5)  # to the right
    assert share[..., 1] == pytest.approx(np.tile(eighths[::-1], (4, 1)).T, abs=1e-5)  # upwards


def test_two_latents_are_shown_as_they_are(conditional):
    model, request = conditional()
    picture = pictures.draw("latents", model, request)
    with torch.no_grad():
        assert_close(picture.arrays["points"], model.encode(request.x, request.y).mean)
    assert (picture.across, picture.up) == ("z0", "z1")
    assert picture.arrays["labels"].tolist() == request.y.argmax(1).tolist()


def test_points_have_the_colour_of_their_class(conditional):
    blue, orange = (31, 119, 180), (255, 127, 14)
    for label, present, absent in ((0, blue, orange), (1, orange, blue)):
        image = pictures.draw("latents", *conditional(labels=(label,))).image()
        colours = {colour for _, colour in image.getcolors(2**20)}
        assert present in colours
        assert absent not in colours


def test_more_latents_are_shown_by_their_principal_components(conditional):
    model, request = conditional(latents=6)
    picture = pictures.draw("latents", model, request)
    with torch.no_grad():
        z = model.encode(request.x, request.y).mean.double()
    _, s, v = torch.linalg.svd(z - z.mean(0), full_matrices=False)
    expected = ((z - z.mean(0)) @ v[:2].T).abs()
    assert_close(picture.arrays["points"].abs().double(), expected, rtol=1e-4, atol=1e-5)
    share = s[0] ** 2 / s.square().sum()
    assert picture.across == f"principal component 1 of z, {share:.0%} of its variance"


@pytest.mark.parametrize(("count", "columns"), [(3, 3), (8, 8), (13, 8), (64, 8), (100, 10)])
def test_samples_fill_rows(subject, count, columns):
    image = pictures.draw("samples", *subject(count=count)).image()
    rows = -(-count // columns)
    assert image.height * (columns * (SIDE + 1) + 1) == image.width * (rows * (SIDE + 1) + 1)


def test_drawing_leaves_no_trace_and_is_the_same_at_each_call(subject):
    model, request = subject()
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
def test_a_film_goes_there_and_back(conditional, tmp_path, name):
    picture = pictures.draw(name, *conditional())
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


def test_the_arrays_are_kept_with_the_settings(conditional, tmp_path):
    picture = pictures.draw("samples", *conditional())
    png, npz = picture.save(tmp_path / "samples", {"seed": 3, "run": "here"})
    with np.load(npz, allow_pickle=False) as file:
        assert json.loads(str(file["settings"])) == {"seed": 3, "run": "here"}
        assert set(file) == {"images", "z", "y", "settings"}
        for name, values in picture.arrays.items():
            assert np.array_equal(file[name], values)
    with Image.open(png) as image:
        assert np.array_equal(np.asarray(image), np.asarray(picture.image()))


def test_an_image_file_takes_the_shape_of_the_model(tmp_path):
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = [250, 100, 0]  # what is left of it: the middle
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    colour = read_image(tmp_path / "wide.png", (3, 10, 10))
    assert colour.dtype == torch.uint8
    assert colour[:, 2:8, 2:8].flatten(1).unique(dim=1).flatten().tolist() == [250, 100, 0]
    grey = read_image(tmp_path / "wide.png", (1, 10, 8))
    assert grey.shape == (1, 10, 8)
    assert abs(int(grey[0, 5, 4]) - round(0.299 * 250 + 0.587 * 100)) <= 1


def test_an_image_file_is_taken_upright(tmp_path):
    pixels = np.zeros((SIDE, SIDE), np.uint8)
    pixels[:2] = 255
    exif = Image.Exif()
    exif[274] = 6  # the camera lay on its side: the first row is to be on the right
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    upright = read_image(tmp_path / "turned.png", (1, SIDE, SIDE))[0]
    assert np.array_equal(upright, np.rot90(pixels, -1))


def test_enlarging_repeats_pixels(subject):
    picture = replace(pictures.draw("manifold", *subject(count=5)), rows=(), heads=(), note="")
    image = np.asarray(picture.image())
    factor = len(image) // (5 * SIDE)
    assert factor > 1
    assert np.array_equal(image, image[::factor, ::factor].repeat(factor, 0).repeat(factor, 1))


def test_beside_each_sample_is_the_nearest_training_image(subject):
    model, request = subject(count=5)
    samples = pictures.draw("samples", model, request).arrays["images"]
    others = torch.rand(20, 1, SIDE, SIDE)
    pool = [others, samples.flip(0) + 0.01]  # the last ones are nearly the samples
    request = replace(request, training=lambda: iter(pool))
    found = pictures.draw("nearest", model, request).arrays
    assert_close(found["images"], samples)
    assert_close(found["nearest"], samples + 0.01)
    assert_close(found["distances"], torch.full((5,), 0.01 * SIDE))


def test_nothing_is_nearest_without_training_images(subject):
    assert "training images" in pictures.obstacle("nearest", *subject())


def test_gaps_are_where_there_are_no_codes(subject):
    """Codes on a ring: the gap is within it, or far outside."""
    model, request = subject(images=200)
    angle = torch.linspace(0, math.tau, 200)
    ring = torch.stack([10 * angle.cos(), 0.1 * angle.sin()], 1)
    model.encode = lambda x, y: Independent(Normal(ring[: len(x)], torch.ones(len(x), 2)), 1)
    found = pictures.draw("gaps", model, replace(request, count=5)).arrays
    assert found["z"].shape == (5, 2)
    units = torch.cdist(found["z"] / ring.std(0), ring / ring.std(0))
    assert_close(found["distances"], units.min(1).values, rtol=1e-4, atol=1e-5)
    assert (found["distances"] > 0.9).all()
    nearest = model.decode(ring[units.argmin(1)], found["y"]).mean
    assert_close(found["nearest"], nearest)


@pytest.mark.parametrize(("count", "channels", "columns", "gap"), [(5, 1, 3, 1), (4, 3, 2, 0)])
def test_images_are_tiled_as_by_torchvision(count, channels, columns, gap):
    x = torch.rand(count, channels, 2, 3)
    grid = make_grid(x, nrow=columns, padding=gap, pad_value=1.0).mul(255).round().byte()
    pixels = np.asarray(tiled(x, columns, gap).convert("RGB"))
    assert np.array_equal(pixels, grid.permute(1, 2, 0).numpy())


def test_rows_without_images_are_white():
    pixels = np.asarray(tiled(torch.zeros(1, 1, 2, 3), 2, rows=2))
    assert pixels.shape == (4, 6)
    assert not pixels[:2, :3].any()
    assert (pixels[2:] == 255).all()
    assert (pixels[:, 3:] == 255).all()


def test_a_class_grid_names_what_is_the_same_in_rows_and_columns(compose):
    cfg = compose(*SMALL, "model=cvae", "condition=continuous")
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


def test_lines_between_images_are_named_by_their_classes(conditional):
    model, request = conditional(count=2)
    model.class_names = {"label": ["cat", "dog", "cow"]}
    assert pictures.draw("interpolation", model, request).rows == ["cat to dog", "cow to cat"]
    note = pictures.draw("arithmetic", model, replace(request, labels=(2, 0))).note
    assert note == "images of cow, with the mean latents of cat minus those of cow added"


def test_the_axes_of_a_manifold_are_those_of_the_prior(subject):
    picture = pictures.draw("manifold", *subject(count=3))
    assert picture.heads == ["-0.97", "0.00", "0.97"]  # quantiles 1/6, 1/2 and 5/6
    assert picture.rows == ["0.97", "0.00", "-0.97"]
    assert picture.note.startswith("z0 to the right and z1 upwards")


@pytest.mark.parametrize("rows", [2, 10, 16])
@pytest.mark.parametrize("names", ["rows", "heads", "both"])
def test_letters_are_legible_on_a_card(rows, names):
    """TensorBoard fits a picture into 415 x 213 pixels, where a letter is to have 10 or nearly."""
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


def test_names_without_room_are_left_out_evenly():
    names = [(10.0 * i, str(i)) for i in range(8)]
    assert [n for _, n in legends.non_overlapping(names, [9.0] * 8)] == [str(i) for i in range(8)]
    assert [n for _, n in legends.non_overlapping(names, [11.0] * 8)] == ["0", "2", "4", "6"]
    assert [n for _, n in legends.non_overlapping(names, [29.0] * 8)] == ["0", "3", "6"]
