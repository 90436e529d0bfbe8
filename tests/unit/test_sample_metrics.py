"""Metrics of samples against exact values, SciPy and plain loops.

They are the Frechet distance, precision, recall, density, coverage and the copied share.
"""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.linalg
import torch
from torch.testing import assert_close

from vaelab.errors import NotApplicable, UserError
from vaelab.evaluation.samplers import Own
from vaelab.evaluation.samples import generate_images, inception, samples_obstacle
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


def correlated_features(count, width, seed):
    """Returns seeded Gaussian features [count, width] with correlated columns of mean `seed`."""
    draws = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=draws).double()
    return torch.randn(count, width, generator=draws).double() @ mixing + seed


# The Frechet distance.


@pytest.mark.parametrize(("count", "width"), [(50, 1), (400, 6), (1000, 40)])
def test_frechet_distance_matches_scipy_matrix_square_root(count, width):
    a, b = correlated_features(count, width, 0), correlated_features(count + 10, width, 1)
    cov_a, cov_b = (np.atleast_2d(np.cov(features.numpy().T)) for features in (a, b))
    root = scipy.linalg.sqrtm(cov_a @ cov_b)
    gap = (a.mean(0) - b.mean(0)).square().sum().item()
    expected = gap + np.trace(cov_a + cov_b - 2 * root.real)
    assert frechet_distance(a, b)["value"] == pytest.approx(expected, rel=1e-8)


def test_frechet_distance_is_exact_with_constant_features():
    """With one varying feature the distance is (m - m')^2 + (s - s')^2."""
    a, b = torch.zeros(5, 3), torch.zeros(4, 3)
    a[:, 1] = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    b[:, 1] = torch.tensor([-2.0, 0.0, 0.0, 2.0])
    expected = 9 + (math.sqrt(2.5) - math.sqrt(8 / 3)) ** 2
    assert frechet_distance(a, b)["value"] == pytest.approx(expected, rel=1e-12)


def test_frechet_distance_is_exact_with_fewer_images_than_features():
    """The features vary in orthogonal directions, so the traces of the covariances add up."""
    a, b = torch.zeros(3, 9), torch.zeros(4, 9)
    a[:, :4], b[:, 4:] = torch.randn(3, 4), torch.randn(4, 5)
    spread = a.var(0).sum() + b.var(0).sum()
    gap = (a.mean(0) - b.mean(0)).square().sum()
    assert frechet_distance(a, b)["value"] == pytest.approx(float(gap + spread), rel=1e-5)


def test_frechet_distance_is_symmetric_rotation_invariant_and_zero_on_itself():
    a, b = correlated_features(300, 20, 0), correlated_features(200, 20, 1)
    assert squared_frechet_distance(a, a) == pytest.approx(0, abs=1e-10 * a.var(0).sum().item())
    assert squared_frechet_distance(a, b) == pytest.approx(
        squared_frechet_distance(b, a), rel=1e-12
    )
    turn = torch.linalg.qr(torch.randn(20, 20).double())[0]
    assert squared_frechet_distance(a @ turn, b @ turn) == pytest.approx(
        squared_frechet_distance(a, b), rel=1e-10
    )


def test_frechet_distance_has_calibrated_error_and_is_deterministic():
    def draw_features():
        return torch.randn(200, 3), torch.randn(300, 3) * 1.5 + 1

    found = [frechet_distance(*draw_features()) for _ in range(60)]
    spread = np.std([entry["value"] for entry in found], ddof=1)
    claimed = np.mean([entry["se"] for entry in found])
    assert claimed == pytest.approx(spread, rel=0.3)  # 60 values give the spread to about a tenth
    a, b = draw_features()
    state = torch.get_rng_state()
    assert frechet_distance(a, b) == frechet_distance(a, b)
    assert torch.equal(torch.get_rng_state(), state)


# Precision and recall, density and coverage.


def kth_neighbour_distance(i, points, k):
    """Returns the distance from points[i] to its k-th neighbour among the others."""
    others = [math.dist(points[i], p) for j, p in enumerate(points) if j != i]
    return sorted(others)[k - 1]


def ball_metrics_by_loops(real, fake, k):
    """Returns precision, recall, density and coverage, in plain loops from their definitions."""
    real, fake = real.tolist(), fake.tolist()
    reach = [kth_neighbour_distance(i, real, k) for i in range(len(real))]
    reach_fake = [kth_neighbour_distance(j, fake, k) for j in range(len(fake))]
    balls = [[math.dist(r, f) <= reach[i] for f in fake] for i, r in enumerate(real)]
    balls_fake = [[math.dist(r, f) <= reach_fake[j] for r in real] for j, f in enumerate(fake)]
    return {
        "precision": np.mean([any(column) for column in zip(*balls, strict=True)]),
        "recall": np.mean([any(column) for column in zip(*balls_fake, strict=True)]),
        "density": np.sum(balls) / (k * len(fake)),
        "coverage": np.mean([any(row) for row in balls]),
    }


@pytest.mark.parametrize("k", [1, 3, 5])
def test_precision_recall_density_coverage_match_plain_loops(monkeypatch, k):
    monkeypatch.setattr(neighbours, "CHUNK", 7)
    real, fake = torch.randn(60, 3).double() + 50, 0.8 * torch.randn(40, 3).double() + 51
    found = precision_recall(real, fake, k) | density_coverage(real, fake, k)
    expected = ball_metrics_by_loops(real, fake, k)
    assert {name: entry["value"] for name, entry in found.items()} == pytest.approx(expected)
    assert all(0 < value < 1 for name, value in expected.items() if name != "density")


def test_precision_recall_density_coverage_match_hand_computed_values():
    """With k = 1 the balls are intervals.

    Of real images: [-1, 1], [0, 2], [1, 21]. Of samples: [-1, 2], [-2.5, 0.5], [-4, -2], [-5, -3].
    """
    real, fake = torch.tensor([[0.0], [1.0], [11.0]]), torch.tensor([[0.5], [-1.0], [-3.0], [-4.0]])
    quality = precision_recall(real, fake, k=1)
    assert quality["precision"]["value"] == 0.5  # 0.5, and -1 on an edge
    assert quality["recall"]["value"] == 2 / 3  # 0 and 1
    spread = density_coverage(real, fake, k=1)
    assert spread["density"]["value"] == 3 / 4  # 0.5 is in two balls, -1 in one
    assert spread["coverage"]["value"] == 2 / 3
    assert quality["precision"]["se"] == pytest.approx(math.sqrt(0.25 / 3))
    assert spread["density"]["se"] == pytest.approx(np.std([2, 1, 0, 0], ddof=1) / 2)


def test_ball_metrics_of_realistic_collapsed_and_distant_samples():
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


def test_precision_recall_rejects_too_few_images():
    with pytest.raises(UserError, match="3 images are too few to have 3 neighbours each"):
        precision_recall(torch.randn(9, 2), torch.randn(3, 2))


@pytest.mark.parametrize(("count", "applicable"), [(5, False), (6, True)])
def test_samples_are_not_applicable_to_five_test_images(count, applicable):
    data = SimpleNamespace(splits=SimpleNamespace(num_classes=2), sizes={"test": count})
    assert (samples_obstacle(None, data) is None) is applicable


def test_samples_of_a_diverged_sampler_are_not_applicable():
    device, shape = torch.device("cpu"), (1, 2, 2)
    draw = lambda y: torch.full((len(y), *shape), torch.nan)  # noqa: E731
    model = SimpleNamespace(x_shape=shape, device=device, pixels="binary", sample_means=draw)
    subject = SimpleNamespace(model=model, data=None, test_labels=torch.eye(3))
    with pytest.raises(NotApplicable, match="its samples are not finite"):
        list(generate_images(subject, 5, lambda model, data: model))


# The nearest training image.


def test_nearest_images_matches_all_pairwise_distances():
    images, pool = torch.rand(20, 2, 8, 8), torch.rand(33, 2, 8, 8)
    images[4] = pool[30] = pool[7]  # equal to two pool images, of which the first counts
    found = nearest_images(images, pool.split(10))
    between = (images[:, None] - pool).square().sum((2, 3, 4)).sqrt()
    assert_close(found.distances, between.min(1).values)
    assert torch.equal(found.indices, between.min(1).indices)
    assert found.indices[4] == 7
    assert found.distances[4] == 0
    assert found.pool_size == 33


def simulate_copied_share(share, seed, count=300):
    """Returns `copied_share` of samples, a share of which are slightly changed training images.

    There are 400 training images and 100 held-out ones, all random.
    """
    draws = torch.Generator().manual_seed(seed)
    train, held_out, new = (torch.randn(n, 1, 2, 3, generator=draws) for n in (400, 100, count))
    copies = round(share * count)
    new[:copies] = train[torch.randint(400, (copies,), generator=draws)] + 1e-3
    return copied_share(nearest_images(new, [train]), nearest_images(new, [held_out]))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_copied_share_is_unbiased_with_calibrated_error(share):
    found = [simulate_copied_share(share, seed) for seed in range(150)]
    values = np.array([entry["value"] for entry in found])
    assert values.mean() == pytest.approx(share, abs=4 * values.std() / math.sqrt(150) + 1e-9)
    errors = [entry["se"] for entry in found]
    if share == 1:  # all deviations are 0
        assert set(errors) == {None}
    else:
        assert np.mean(errors) == pytest.approx(values.std(), rel=0.3)


def test_copied_share_matches_hand_computed_value_and_error():
    """Three of four samples are nearest to a training image, as expected of 3 against 1 image.

    The nearest are training image 0 twice, training image 1 once and held-out image 0 once.
    """
    seen = torch.zeros(4, 1, 8, 8)
    among_train = NearestImages(
        torch.tensor([0, 0, 1, 0]), torch.tensor([1.0, 1.0, 1.0, 3.0]), seen, 3
    )
    among_held_out = NearestImages(
        torch.tensor([0, 0, 0, 0]), torch.tensor([2.0, 2.0, 2.0, 1.0]), seen, 1
    )
    found = copied_share(among_train, among_held_out)
    assert found["value"] == 0
    clusters = math.sqrt(3 / 2)  # for three distinct nearest images
    assert found["se"] == pytest.approx(clusters * math.hypot(2 / 4, 1 / 4, 3 / 4))


def test_nearest_images_are_the_same_far_from_zero():
    pool, images = torch.randint(999, (300, 2)).float(), torch.randint(999, (40, 2)).float()
    expected = (images[:, None] - pool).square().sum(2).amin(1).sqrt()
    for shift in (0, 2**20):
        found = nearest_images(images + shift, (pool + shift).split(100))
        assert_close(found.distances, expected)


def test_copied_share_is_zero_for_equal_distances():
    images = torch.rand(2, 1, 8, 8)
    nearest = nearest_images(images[[0, 0, 1]], [images])
    assert copied_share(nearest, nearest) == {"value": 0, "se": 0}


def test_copied_share_is_not_applicable_to_identical_samples():
    train, held_out = torch.rand(9, 1, 8, 8), torch.rand(9, 1, 8, 8)
    samples = train[:1].expand(5, -1, -1, -1)
    with pytest.raises(NotApplicable, match="5 samples are nearest to 1 real images only"):
        copied_share(nearest_images(samples, [train]), nearest_images(samples, [held_out]))


@pytest.mark.parametrize("count", [1, 4])
def test_copied_share_is_not_applicable_to_samples_with_a_single_nearest_image(count):
    train, held_out = torch.rand(9, 1, 8, 8), torch.rand(9, 1, 8, 8)
    samples = train[:1].expand(count, -1, -1, -1)
    with pytest.raises(NotApplicable, match=f"{count} samples are nearest to 1 real images only"):
        copied_share(nearest_images(samples, [train]), nearest_images(samples, [held_out]))


@pytest.mark.parametrize(
    ("shape", "test_images", "count", "reason"),
    [
        ((2, 8, 8), 9, 9, "images of one channel or three, and these have 2"),
        ((4, 8, 8), 9, 9, "images of one channel or three, and these have 4"),
        ((8,), 9, 9, "it takes images, and these are vectors"),
        ((3, 8, 8), 1, 9, "of one image there is no covariance"),
        ((3, 8, 8), 9, 1, "of one image there is no covariance"),
    ],
)
def test_inception_is_not_applicable_to_other_channels_or_one_image(
    shape, test_images, count, reason
):
    data = SimpleNamespace(noun="vectors", sizes={"test": test_images})
    subject = SimpleNamespace(model=SimpleNamespace(x_shape=shape), data=data)
    with pytest.raises(NotApplicable, match=reason):
        inception(subject, count=count, sampler=Own())


@pytest.mark.parametrize("metric", [precision_recall, density_coverage, frechet_distance])
def test_feature_metrics_are_not_applicable_to_constant_features(metric):
    with pytest.raises(NotApplicable, match="the features are the same for all images"):
        metric(torch.zeros(20, 4), torch.zeros(20, 4))


def test_mean_estimate_of_equal_booleans_has_no_error():
    assert mean_estimate(torch.ones(5).bool()) == {"value": 1, "se": None}
    assert mean_estimate(torch.zeros(5).bool()) == {"value": 0, "se": None}
    assert mean_estimate(torch.tensor([True, False]))["se"] == pytest.approx(0.5)
