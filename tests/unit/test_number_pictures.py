"""Tests of the pictures of vectors and signals: every kind, arrays in the units of the file."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from vaelab import pictures
from vaelab.observations import Units
from vaelab.pictures import Request
from vaelab.pictures.plots import PairPlot, Plots, arranged, table_text

NETWORKS = ["network=mlp", "model.encoder.hidden=[8]", "model.decoder.hidden=[8]"]
UNITS = {
    (3,): Units(("a $x", "b", "c"), (100.0, 0.0, -5.0), (10.0, 1.0, 0.1)),
    (2, 9): Units(("left", "right"), (100.0, 0.0), (10.0, 1.0)),
    (1, 9): Units(("channel 0",), (100.0,), (10.0,)),
}


@pytest.fixture
def build_request(build):
    """(shape, conditional, latents, images) -> model of real numbers in UNITS, and request."""

    def make(shape, conditional=True, latents=2, images=30):
        choice = ["model=cvae", "likelihood=gaussian", "data.pixels=real", *NETWORKS]
        if not conditional:
            choice[0] = "model=vae"
        classes = 3 if conditional else 0
        sizes = {"x_shape": shape, "num_classes": classes}
        model = build(*choice, f"model.latent_dim={latents}", **sizes).eval()
        model.units = UNITS[shape]
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.3 * torch.randn_like(parameter)
        x = torch.randn(images, *shape)
        y = torch.eye(3)[torch.arange(images) % 3] if conditional else torch.zeros(images, 0)
        request = Request(x, y, model.num_classes, training=lambda: [torch.randn(50, *shape)])
        return model, request

    return make


@pytest.mark.parametrize("shape", UNITS)
@pytest.mark.parametrize("name", pictures.KINDS)
def test_every_kind_is_drawn_and_saved(build_request, tmp_path, name, shape):
    model, request = build_request(shape)
    picture = pictures.draw(name, model, request)
    paths = picture.save(tmp_path / name, {"what": name})
    expected = {".png", ".npz"} | ({".csv"} if len(shape) == 1 and name != "latents" else set())
    assert {path.suffix for path in paths} == expected
    assert np.asarray(Image.open(paths[0]).convert("L")).std() > 1
    assert picture.image(card=True).width < picture.image().width or name == "latents"


@pytest.mark.parametrize("shape", UNITS)
def test_reconstructions_are_in_units_of_the_file(build_request, tmp_path, shape):
    model, request = build_request(shape)
    picture = pictures.draw("reconstructions", model, request)
    assert isinstance(picture, Plots)
    assert picture.series == ["input", "reconstruction"]
    assert picture.cells.shape == (32, 2, *shape)
    rows = torch.arange(32) % 30
    with torch.no_grad():
        expected = model.mean_reconstruction(request.x[rows], request.y[rows])
    assert_close(picture.arrays["x"], model.in_units(request.x[rows]))
    assert_close(picture.arrays["images"], model.in_units(expected), rtol=1e-5, atol=1e-5)
    assert picture.arrays["images"][:, 0].mean() > 50  # about 100
    picture.save(tmp_path / "here", {})
    with np.load(tmp_path / "here.npz") as file:
        assert_close(torch.from_numpy(file["images"]), picture.arrays["images"])


def test_samples_of_vectors_have_the_noise_of_the_likelihood(build_request):
    model, request = build_request((3,))
    picture = pictures.draw("samples", model, request)
    assert isinstance(picture, PairPlot)
    noise = (picture.arrays["images"] - picture.arrays["means"]).std(0)
    expected = model.likelihood.log_scale.exp().double() * torch.tensor(model.units.scale)
    assert len(picture.arrays["images"]) == 1000
    assert_close(noise, expected.double(), rtol=0.1, atol=0)


def test_table_of_samples_has_names_and_labels(build_request, tmp_path):
    model, request = build_request((3,))
    picture = pictures.draw("samples", model, Request(request.x, request.y, 3, count=7))
    picture.save(tmp_path / "samples", {"seed": 0})
    with (tmp_path / "samples.csv").open() as file:
        head, *rows = csv.reader(file)
    assert head == ["a $x", "b", "c", "label"]
    numbers = torch.tensor([[float(cell) for cell in row[:3]] for row in rows]).double()
    assert_close(numbers, picture.arrays["images"], rtol=1e-6, atol=1e-6)
    assert [row[3] for row in rows] == ["0", "1", "2", "0", "1", "2", "0"]
    with np.load(tmp_path / "samples.npz") as file:
        assert json.loads(str(file["settings"])) == {"seed": 0}


def test_samples_of_exported_model_need_no_data(build_request):
    model, request = build_request((3,), conditional=False)
    picture = pictures.draw("samples", model, Request(request.x[:0], request.y[:1], 0))
    assert picture.image().width > 100


@pytest.mark.parametrize("shape", [(1,), (2,), (40,)])
def test_pair_plot_of_any_number_of_columns(shape):
    arrays = {"images": torch.randn(9, *shape).double(), "x": torch.randn(5, *shape).double()}
    plot = PairPlot(arrays=arrays, units=Units.default(*shape), axes=1)
    assert plot.image().width > 100


@pytest.mark.parametrize("value", [0.0, 3.0, -1.0])
def test_plots_of_constant_numbers_are_drawn(value):
    cells = torch.full((2, 1, 9), value).unsqueeze(1)
    plot = Plots(arrays={}, units=Units.default(1), axes=2, cells=cells)
    assert plot.image().width > 100
    bars = Plots(arrays={}, units=Units.default(9), axes=1, cells=cells[:, 0])
    assert bars.image().width > 100


def test_arranged_fills_rows_and_leaves_the_rest_empty():
    found = arranged(torch.arange(10.0).view(5, 2), 3)
    assert found.shape == (2, 3, 2)
    assert found[1, 1].tolist() == [8, 9]
    assert found[1, 2].isnan().all()


def test_table_text_keeps_twelve_digits_and_quotes_names():
    rows = torch.tensor([[1.7e9 + 1.5, -2.5]], dtype=torch.float64)
    text = table_text(("a,b", "c"), rows, {"label": ["x"], "age": ["40"]})
    assert text == '"a,b",c,label,age\n1700000001.5,-2.5,x,40\n'
