"""Distances between samples and real images: exact values, and plain loops beside the fast code."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torch.testing import assert_close

from vaelab.errors import NotApplicable, UserError
from vaelab.metrics import neighbours
from vaelab.metrics.estimates import mean_estimate
from vaelab.metrics.frechet import frechet_distance, squared_frechet_distance
from vaelab.metrics.neighbours import (
    NearestImages,
    copied_share,
    density_coverage,
    nearest_images,
    precision_recall,
)


def correlated(count, width, seed):
    draws = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=draws).double()
    return torch.randn(count, width, generator=draws).double() @ mixing + seed


# The Frechet distance.


@pytest.mark.parametrize(("count", "width"), [(50, 1), (400, 6), (1000, 40)])
def test_frechet_by_a_matrix_square_root(count, width):
    a, b = correlated(count, width, 0), correlated(count + 10, width, 1)
    cov_a, cov_b = (np.atleast_2d(np.cov(features.numpy().T)) for features in (a, b))
    root = scipy.linalg.sqrtm(cov_a @ cov_b)
    gap = (a.mean(0) - b.mean(0)).square().sum().item()
    expected = gap + np.trace(cov_a + cov_b - 2 * root.real)
    assert frechet_distance(a, b)["value"] == pytest.approx(expected, rel=1e-8)


def test_frechet_of_lines_and_of_features_that_never_vary():
    """With one varying feature it is (m - m')^2 + (s - s')^2."""
    a, b = torch.zeros(5, 3), torch.zeros(4, 3)
    a[:, 1] = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    b[:, 1] = torch.tensor([-2.0, 0.0, 0.0, 2.0])
    expected = 9 + (math.sqrt(2.5) - math.sqrt(8 / 3)) ** 2
    assert frechet_distance(a, b)["value"] == pytest.approx(expected, rel=1e-12)


def test_frechet_with_fewer_images_than_features():
    """Across orthogonal directions no mass is shared: the traces add up."""
    a, b = torch.zeros(3, 9), torch.zeros(4, 9)
    a[:, :4], b[:, 4:] = torch.randn(3, 4), torch.randn(4, 5)
    spread = a.var(0).sum() + b.var(0).sum()
    gap = (a.mean(0) - b.mean(0)).square().sum()
    assert frechet_distance(a, b)["value"] == pytest.approx(float(gap + spread), rel=1e-5)


def test_frechet_is_symmetric_and_zero_for_the_same():
    a, b = correlated(300, 20, 0), correlated(200, 20, 1)
    assert squared_frechet_distance(a, a) == pytest.approx(0, abs=1e-10 * a.var(0).sum().item())
    assert squared_frechet_distance(a, b) == pytest.approx(
        squared_frechet_distance(b, a), rel=1e-12
    )
    turn = torch.linalg.qr(torch.randn(20, 20).double())[0]
    assert squared_frechet_distance(a @ turn, b @ turn) == pytest.approx(
        squared_frechet_distance(a, b), rel=1e-10
    )


def test_frechet_knows_its_error_and_repeats_itself():
    def pair():
        return torch.randn(200, 3), torch.randn(300, 3) * 1.5 + 1

    found = [frechet_distance(*pair()) for _ in range(60)]
    spread = np.std([entry["value"] for entry in found], ddof=1)
    claimed = np.mean([entry["se"] for entry in found])
    assert claimed == pytest.approx(spread, rel=0.3)  # 60 of them tell the spread to a tenth
    a, b = pair()
    state = torch.get_rng_state()
    assert frechet_distance(a, b) == frechet_distance(a, b)
    assert torch.equal(torch.get_rng_state(), state)


# Precision and recall, density and coverage.


def radius(i, points, k):
    others = [math.dist(points[i], p) for j, p in enumerate(points) if j != i]
    return sorted(others)[k - 1]


def by_loops(real, fake, k):
    """The four, from their definitions."""
    real, fake = real.tolist(), fake.tolist()
    reach = [radius(i, real, k) for i in range(len(real))]
    reach_fake = [radius(j, fake, k) for j in range(len(fake))]
    balls = [[math.dist(r, f) <= reach[i] for f in fake] for i, r in enumerate(real)]
    balls_fake = [[math.dist(r, f) <= reach_fake[j] for r in real] for j, f in enumerate(fake)]
    return {
        "precision": np.mean([any(column) for column in zip(*balls, strict=True)]),
        "recall": np.mean([any(column) for column in zip(*balls_fake, strict=True)]),
        "density": np.sum(balls) / (k * len(fake)),
        "coverage": np.mean([any(row) for row in balls]),
    }


@pytest.mark.parametrize("k", [1, 3, 5])
def test_the_four_by_plain_loops(monkeypatch, k):
    monkeypatch.setattr(neighbours, "CHUNK", 7)
    real, fake = torch.randn(60, 3).double() + 50, 0.8 * torch.randn(40, 3).double() + 51
    found = precision_recall(real, fake, k) | density_coverage(real, fake, k)
    expected = by_loops(real, fake, k)
    assert {name: entry["value"] for name, entry in found.items()} == pytest.approx(expected)
    assert all(0 < value < 1 for name, value in expected.items() if name != "density")


def test_the_four_on_a_line():
    """With k = 1: real balls [-1, 1], [0, 2], [1, 21]; of samples [-1, 2] and further left."""
    real, fake = torch.tensor([[0.0], [1.0], [11.0]]), torch.tensor([[0.5], [-1.0], [-3.0], [-4.0]])
    quality = precision_recall(real, fake, k=1)
    assert quality["precision"]["value"] == 0.5  # 0.5 and, on an edge, -1
    assert quality["recall"]["value"] == 2 / 3  # 0 and 1
    spread = density_coverage(real, fake, k=1)
    assert spread["density"]["value"] == 3 / 4  # 0.5 is in two balls, -1 in one
    assert spread["coverage"]["value"] == 2 / 3
    assert quality["precision"]["se"] == pytest.approx(math.sqrt(0.25 / 3))
    assert spread["density"]["se"] == pytest.approx(np.std([2, 1, 0, 0], ddof=1) / 2)


def test_like_real_images_or_in_one_place_or_elsewhere():
    real = torch.randn(1500, 4)
    same = density_coverage(real, torch.randn(1500, 4))
    assert same["density"]["value"] == pytest.approx(1, abs=0.06)
    assert same["coverage"]["value"] == pytest.approx(1 - 2**-5, abs=0.02)
    collapsed = real[:1] + 1e-3 * torch.randn(100, 4)
    found = precision_recall(real, collapsed) | density_coverage(real, collapsed)
    assert found["precision"]["value"] == 1
    assert found["recall"]["value"] < 0.01
    assert found["coverage"]["value"] < 0.02
    elsewhere = real + 100
    found = precision_recall(real, elsewhere) | density_coverage(real, elsewhere)
    assert [entry["value"] for entry in found.values()] == [0, 0, 0, 0]


def test_too_few_for_neighbours():
    with pytest.raises(UserError, match="3 images are too few to have 3 neighbours each"):
        precision_recall(torch.randn(9, 2), torch.randn(3, 2))


# The nearest training image.


def test_nearest_by_plain_loops():
    images, pool = torch.rand(20, 2, 8, 8), torch.rand(33, 2, 8, 8)
    images[4] = pool[30] = pool[7]  # a copy, of two images alike
    found = nearest_images(images, pool.split(10))
    between = (images[:, None] - pool).square().sum((2, 3, 4)).sqrt()
    assert_close(found.distances, between.min(1).values)
    assert torch.equal(found.indices, between.min(1).indices)
    assert found.indices[4] == 7
    assert found.distances[4] == 0
    assert found.pool_size == 33


def copies_and_news(share, seed, count=300):
    """Samples of which a share are training images a little changed, against 400 and 100."""
    draws = torch.Generator().manual_seed(seed)
    train, held_out, new = (torch.randn(n, 1, 2, 3, generator=draws) for n in (400, 100, count))
    copies = round(share * count)
    new[:copies] = train[torch.randint(400, (copies,), generator=draws)] + 1e-3
    return copied_share(nearest_images(new, [train]), nearest_images(new, [held_out]))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_copied_finds_the_share_of_copies_and_knows_its_error(share):
    found = [copies_and_news(share, seed) for seed in range(150)]
    values = np.array([entry["value"] for entry in found])
    assert values.mean() == pytest.approx(share, abs=4 * values.std() / math.sqrt(150) + 1e-9)
    errors = [entry["se"] for entry in found]
    if share == 1:  # whose deviations are 0
        assert set(errors) == {None}
    else:
        assert np.mean(errors) == pytest.approx(values.std(), rel=0.3)


def test_copied_by_hand():
    """The nearest of all: training image 0 twice, 1 once, held-out image 0 once; 3/4 expected."""
    seen = torch.zeros(4, 1, 8, 8)
    among_train = NearestImages(
        torch.tensor([0, 0, 1, 0]), torch.tensor([1.0, 1.0, 1.0, 3.0]), seen, 3
    )
    among_held_out = NearestImages(
        torch.tensor([0, 0, 0, 0]), torch.tensor([2.0, 2.0, 2.0, 1.0]), seen, 1
    )
    found = copied_share(among_train, among_held_out)
    assert found["value"] == 0
    clusters = math.sqrt(3 / 2)  # three nearest images
    assert found["se"] == pytest.approx(clusters * math.hypot(2 / 4, 1 / 4, 3 / 4))


def test_copied_where_neither_is_nearer():
    images = torch.rand(2, 1, 8, 8)
    nearest = nearest_images(images[[0, 0, 1]], [images])
    assert copied_share(nearest, nearest) == {"value": 0, "se": 0}


def test_samples_that_are_all_the_same_say_nothing_of_copies():
    train, held_out = torch.rand(9, 1, 8, 8), torch.rand(9, 1, 8, 8)
    samples = train[:1].expand(5, -1, -1, -1)
    with pytest.raises(NotApplicable, match="5 samples are nearest to 1 real images only"):
        copied_share(nearest_images(samples, [train]), nearest_images(samples, [held_out]))


@pytest.mark.parametrize("metric", [precision_recall, density_coverage, frechet_distance])
def test_a_classifier_that_learned_nothing_judges_nothing(metric):
    with pytest.raises(NotApplicable, match="the features are the same for all images"):
        metric(torch.zeros(20, 4), torch.zeros(20, 4))


def test_a_share_of_all_or_none_has_no_error():
    assert mean_estimate(torch.ones(5).bool()) == {"value": 1, "se": None}
    assert mean_estimate(torch.zeros(5).bool()) == {"value": 0, "se": None}
    assert mean_estimate(torch.tensor([True, False]))["se"] == pytest.approx(0.5)
