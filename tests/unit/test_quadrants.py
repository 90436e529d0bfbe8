"""Images to be completed from some of their quadrants."""

import pytest
import torch
from torch.distributions import Bernoulli
from torch.testing import assert_close

from vaelab import evaluation
from vaelab.conditions import Continuous
from vaelab.data import Images, Quadrants
from vaelab.data.columns import Column
from vaelab.data.quadrants import known_mask
from vaelab.data.splits import Splits
from vaelab.evaluation import Subject
from vaelab.evaluation.neighbours import column_scales
from vaelab.metrics.neighbour_prediction import NeighbourPrediction


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


def test_neighbours_predict_by_their_mean_and_the_average_image():
    known = torch.tensor([[0.0, 0], [0, 1], [5, 5], [9, 9]])
    pixels = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 0, 0.5], [0, 1, 0]])
    fitted = NeighbourPrediction.fit(known, pixels, 2)
    average = torch.tensor([2.5, 2.5, 1.0]) / 5
    assert_close(fitted.average, average)
    expected = torch.stack([(pixels[:2].sum(0) + average) / 3, (pixels[2:].sum(0) + average) / 3])
    queries = torch.tensor([[0.0, 0.4], [7, 7]])
    assert_close(fitted.probabilities(queries), expected)
    x = torch.tensor([[1.0, 0, 0], [0, 1, 1]])
    found = fitted.nll(x.view(2, 1, 1, 3), queries)
    by_hand = -(x * expected.log() + (1 - x) * (1 - expected).log()).sum(1)
    assert_close(found, by_hand.double())


def test_neighbours_are_the_same_far_from_zero():
    known, queries = torch.randint(2000, (300, 2)).float(), torch.randint(2000, (40, 2)).float()
    known, queries, pixels = known + 0.25, queries, torch.rand(300, 5)
    near = NeighbourPrediction.fit(known, pixels, 1).probabilities(queries)
    far = NeighbourPrediction.fit(known + 2**20, pixels, 1).probabilities(queries + 2**20)
    assert_close(far, near)
    by_differences = (queries[:, None] - known).square().sum(2).argmin(1)
    assert_close(near, (pixels[by_differences] + (pixels.sum(0) + 0.5) / 301) / 2)


def test_neighbours_metric_does_not_depend_on_units(build, tmp_path):
    images, labels = torch.randint(256, (60, 1, 8, 8), dtype=torch.uint8), torch.zeros(60).long()
    age, day = torch.randint(90, (60, 1)), 20_000 + torch.randint(900, (60, 1))
    found = []
    for unit in (1, 86_400):
        columns = {
            "age": age.float(),
            "constant": 1 + 0 * age.float(),
            "time": (day * unit).float(),
        }
        columns = {name: Column(numbers[:40], numbers[40:]) for name, numbers in columns.items()}
        splits = Splits(images[:40], labels[:40], images[40:], labels[40:], 0, columns=columns)
        settings = {"batch_size": 5, "val_size": 5, "pixels": "binary", "numbers": True}
        data = Images(source=lambda splits=splits: splits, **settings)
        shapes = {name: data.shapes[name] for name in ("x_shape", "numbers")}
        model = build("condition=continuous", **shapes).eval()
        subject = Subject(model, data, tmp_path, track=lambda items, _: items)
        found.append(evaluation.neighbours(subject, count=1)["neighbours_nll"]["value"])
        known = data.labels("train")[data.rows["train"]]
        deviations = known.std(0, correction=0)
        deviations[1] = 1  # of the constant column
        assert_close(column_scales(data, known), deviations)
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_neighbours_of_quadrants_have_one_scale_for_all_pixels(source):
    data = Images(source=source(2)[0], batch_size=5, val_size=5, pixels="binary", numbers=True)
    known = data.labels("train")[data.rows["train"]]
    scales = column_scales(data, known)
    assert (scales == scales[0]).all()
    assert_close(scales[0], known.var(0, correction=0).mean().sqrt())


def test_neighbours_of_all_images_are_no_better_than_the_average():
    pixels, x = torch.rand(30, 1, 2, 2), torch.randint(2, (9, 1, 2, 2)).float()
    fitted = NeighbourPrediction.fit(torch.rand(30, 3), pixels, 99)
    mean = (pixels.sum(0) + fitted.average.view(1, 2, 2)) / 31
    expected = Bernoulli(mean).log_prob(x).flatten(1).sum(1)
    assert_close(fitted.nll(x, torch.rand(9, 3)), -expected.double(), rtol=1e-5, atol=1e-5)


def test_neighbours_metric_measures_test_images_by_what_is_known(source, build, tmp_path):
    made, images = source(2)
    data = Images(source=made, batch_size=5, val_size=5, pixels="binary", numbers=True)
    shapes = data.shapes
    model = build("condition=continuous", x_shape=shapes["x_shape"], numbers=shapes["numbers"])
    subject = Subject(model.eval(), data, tmp_path, track=lambda items, _: items)
    found = evaluation.neighbours(subject, count=3)["neighbours_nll"]["value"]
    rows, mask = data.rows["train"], known_mask((8, 9), 2)
    known, pixels = images[:15][rows][..., mask].flatten(1) / 255, images[:15][rows] / 255
    fitted = NeighbourPrediction.fit(known, pixels.masked_fill(mask, 0), 3)
    losses = [fitted.nll(x, y) for x, y in data.batches("test")]
    assert found == pytest.approx(torch.cat(losses).mean().item(), rel=1e-6)


@pytest.mark.parametrize(
    ("parts", "pixels", "numbers", "reason"),
    [
        ("likelihood=gaussian condition=continuous", "grey", True, "binary pixels"),
        ("condition=none", "binary", True, "told no numbers"),
        ("condition=one_hot", "binary", False, "told no numbers"),
        ("condition=continuous", "binary", True, None),
    ],
)
def test_neighbours_say_why_they_are_not_applicable(source, build, parts, pixels, numbers, reason):
    data = Images(source=source(1)[0], batch_size=5, val_size=5, pixels=pixels, numbers=numbers)
    shapes = data.shapes
    model = build(*parts.split(), x_shape=(1, 8, 9), numbers=shapes["numbers"])
    found = evaluation.neighbours.obstacle(model, data)
    assert found is None if reason is None else reason in found


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
