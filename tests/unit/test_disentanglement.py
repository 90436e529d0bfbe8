"""Tests of the disentanglement metrics against published values, slow computations and invariances.

The slow computations share no code of vaelab with the metrics.
Shapes: N images, D latents, F factors.
"""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax
from scipy.stats import entropy, norm, rankdata, special_ortho_group
from sklearn.ensemble import GradientBoostingClassifier

from vaelab.errors import UserError
from vaelab.metrics.disentanglement import (
    beta_vae_score,
    dci,
    explicitness,
    factor_vae_score,
    irs,
    mig,
    mig_chen,
    mixtures,
    modularity,
    sap,
)

DSPRITES_SIZES = (3, 6, 40, 32, 32)
SIZES = (3, 4, 5)  # values of each factor
GRID = np.stack(np.unravel_index(np.arange(60), SIZES), 1)  # every combination once


def rng(seed=0):
    return np.random.default_rng(seed)


# Published values.


@pytest.fixture(scope="module")
def dsprites_draws():
    """Factors of dSprites [10000, 5], and two sets of independent Gaussian noise [10000, 5]."""
    legacy = np.random.RandomState(0)  # the generator that gives the published values
    factors = np.stack([legacy.randint(size, size=10_000) for size in DSPRITES_SIZES], 1)
    return factors, legacy.randn(10_000, 5), legacy.randn(10_000, 5)


def test_mig_reproduces_published_values(dsprites_draws):
    factors, noise, more = dsprites_draws
    angle = 2 * np.pi / 40 * factors[:, [2]]
    circle = np.hstack([np.delete(factors, 2, 1), np.sin(angle), np.cos(angle), noise])
    assert mig(np.hstack([factors, noise]), factors) == pytest.approx(0.895, abs=5e-4)
    assert mig(np.hstack([factors, noise]), factors, bins=40) == pytest.approx(0.987, abs=5e-4)
    assert mig(circle, factors) == pytest.approx(0.736, abs=5e-4)
    assert mig(np.hstack([noise, more]), factors) == pytest.approx(0.000, abs=5e-4)


def test_mig_of_rotated_codes_is_lower(dsprites_draws):
    """At 45 degrees two latents share two factors equally, so both of those gaps are zero."""
    factors, *_ = dsprites_draws
    perfect = (factors - factors.mean(0)) / factors.std(0)
    x, y = perfect[:, 3], perfect[:, 4]
    turned = np.column_stack([perfect[:, :3], x - y, x + y])
    assert mig(turned, factors) == pytest.approx(
        mig(perfect[:, :3], factors[:, :3]) * 3 / 5, abs=0.01
    )
    turns = special_ortho_group.rvs(5, size=5, random_state=0)
    assert max(mig(perfect @ turn, factors) for turn in turns) < 0.4


# Slow computations.


@pytest.fixture
def sampled_pairs():
    """Noisy codes [300, 4], each with information on several factors, and the factors [300, 3]."""
    factors = GRID[rng().integers(60, size=300)]
    mixing = rng(1).normal(size=(3, 4)) * [1, 1, 0.3, 0]
    return factors @ mixing + 0.5 * rng(2).normal(size=(300, 4)), factors


def mutual_information(xs, ys):
    """Returns the mutual information in nats of two lists of discrete values, by counting."""
    both, x_counts, y_counts, count = (
        Counter(zip(xs, ys, strict=True)),
        Counter(xs),
        Counter(ys),
        len(xs),
    )
    return sum(
        n / count * math.log(n * count / (x_counts[x] * y_counts[y])) for (x, y), n in both.items()
    )


def bin_indices(code, bins):
    """Returns the bin of each value of a list, in bins of equal width between its extremes."""
    low, width = min(code), (max(code) - min(code)) / bins
    return [min(int((value - low) / width), bins - 1) for value in code]


def information_table(codes, factors, bins):
    """Returns the mutual information of binned codes and factors, as lists [F][D]."""
    return [
        [mutual_information(bin_indices(list(c), bins), list(f)) for c in codes.T]
        for f in factors.T
    ]


@pytest.mark.parametrize("bins", [3, 20])
def test_mig_agrees_with_loops(sampled_pairs, bins):
    codes, factors = sampled_pairs
    gaps = []
    for row, factor in zip(information_table(codes, factors, bins), factors.T, strict=True):
        second, first = sorted(row)[-2:]
        gaps.append((first - second) / mutual_information(list(factor), list(factor)))
    assert mig(codes, factors, bins) == pytest.approx(sum(gaps) / 3, rel=1e-9)


@pytest.mark.parametrize("bins", [3, 20])
def test_modularity_agrees_with_distance_from_template(sampled_pairs, bins):
    codes, factors = sampled_pairs
    scores = []
    for told in np.transpose(information_table(codes, factors, bins)):
        template = np.zeros(3)
        template[told.argmax()] = told.max()
        scores.append(1 - sum((told - template) ** 2) / (told.max() ** 2 * 2))
    assert modularity(codes, factors, bins) == pytest.approx(np.mean(scores), rel=1e-9)


@pytest.mark.parametrize("quantile", [0.9, 0.99, 1.0])
def test_irs_agrees_with_loops(sampled_pairs, quantile):
    codes, factors = sampled_pairs
    scores, weights = [], []
    for code in codes.T:
        farthest = max(abs(code - code.mean()))
        robust = []
        for factor in factors.T:
            strays = []
            for value in set(factor):
                group = code[factor == value]
                distances = sorted(abs(group - group.mean()))
                place = quantile * (len(distances) - 1)
                below, above = distances[math.floor(place)], distances[math.ceil(place)]
                strays.append(below + (above - below) * (place % 1))
            robust.append(1 - sum(strays) / len(strays) / farthest)
        scores.append(max(robust))
        weights.append(farthest)
    expected = np.dot(scores, weights) / sum(weights)
    assert irs(codes, factors, quantile) == pytest.approx(expected, rel=1e-9)


def mixture_density(at, means, scales):
    """Returns the mean density [P] of N Gaussians at the points `at` [P]."""
    return norm.pdf(at[:, None], means, scales).mean(1)


def test_mig_chen_agrees_with_numeric_integration():
    means = GRID @ np.array([[1.0, 0.3], [0.2, 0.5], [0.0, 1.0]]) + 100.0
    scales = rng().uniform(0.1, 0.6, means.shape)
    at = np.linspace(90, 115, 5_001)
    gaps = []
    for factor in GRID.T:
        told = []
        for mean, scale in zip(means.T, scales.T, strict=True):
            everywhere, total = mixture_density(at, mean, scale), 0.0
            for value in set(factor):
                here = mixture_density(at, mean[factor == value], scale[factor == value])
                ratio = np.log(np.maximum(here, 1e-300) / np.maximum(everywhere, 1e-300))
                total += np.mean(factor == value) * trapezoid(here * ratio, at)
            told.append(total)
        gaps.append(abs(told[0] - told[1]) / math.log(len(set(factor))))
    found = mig_chen(means, scales, GRID, rng(), samples=100_000)
    assert found == pytest.approx(np.mean(gaps), abs=0.006)
    assert 0.3 < found < 0.6


def test_log_latent_mixtures_agrees_with_scipy(monkeypatch):
    monkeypatch.setattr(mixtures, "CHUNK", 64)
    means, scales = 1000 + rng(0).normal(size=(60, 2)), rng(1).uniform(0.01, 1, (60, 2))
    z = rng(2).normal(means, scales)[:50]
    exact = logsumexp(norm.logpdf(z[:, None], means, scales), 1) - math.log(60)
    found = mixtures.log_latent_mixtures(z, means, scales) - math.log(2 * math.pi) / 2
    np.testing.assert_allclose(found, exact, atol=1e-4)


def split_pairs(codes, factors):
    """Returns codes and factors to fit and to score, split as by the metrics, and the generator.

    The metrics draw the split from `rng()` first; the generator is in the state after that.
    """
    generator = rng()
    order = generator.permutation(len(codes))
    score, fit = order[: len(codes) // 3], order[len(codes) // 3 :]
    return codes[fit], factors[fit], codes[score], factors[score], generator


def dci_scores(importance, guesses, asked):
    """Returns the DCI scores from importances [D, F], predicted and true factors [N, F]."""

    def unevenness(shares):
        shares = [share / sum(shares) for share in shares]
        return 1 + sum(p * math.log(p) for p in shares if p) / math.log(len(shares))

    total = importance.sum()
    return {
        "disentanglement": sum(sum(row) / total * unevenness(row) for row in importance),
        "completeness": sum(sum(part) / total * unevenness(part) for part in importance.T),
        "informativeness": np.mean(guesses == asked),
    }


def test_dci_agrees_with_scores_from_boosted_trees(sampled_pairs):
    codes, factors = sampled_pairs[0][:200], sampled_pairs[1][:200, :2]
    fit, known, score, asked, generator = split_pairs(codes, factors)
    importance, guesses = [], []
    for v in known.T:
        model = GradientBoostingClassifier(random_state=int(generator.integers(2**31)))
        importance.append(model.fit(fit, v).feature_importances_)
        guesses.append(model.predict(score))
    expected = dci_scores(np.transpose(importance), np.transpose(guesses), asked)
    assert dci(codes, factors, rng()) == pytest.approx(expected)


def test_dci_clips_negative_importances_to_zero(sampled_pairs, monkeypatch):
    parts = np.array([0.6, 0.4 + 1e-17, -1e-17, 0.0])
    monkeypatch.setattr(GradientBoostingClassifier, "feature_importances_", parts)
    found = dci(sampled_pairs[0][:200], sampled_pairs[1][:200, :2], rng())
    assert found["completeness"] == pytest.approx(1 - entropy([0.6, 0.4]) / math.log(4))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_dci_splits_importance_between_equal_latents(seed):
    """The codes hold each factor twice, so each copy gets half of the importance."""
    factors = np.stack([rng(seed).permuted(np.arange(1200) % size) for size in (3, 4, 5)], 1)
    twice = np.concatenate([factors, factors], 1).astype(float)
    found = dci(twice, factors, rng(seed))
    assert found["disentanglement"] == pytest.approx(1, abs=1e-3)
    assert found["completeness"] == pytest.approx(1 - math.log(2) / math.log(6), abs=0.02)


def test_dci_does_not_depend_on_number_of_threads(sampled_pairs):
    codes, factors = sampled_pairs[0][:300], sampled_pairs[1][:300]
    before = torch.get_num_threads()
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        found.append(dci(codes, factors, rng()))
    torch.set_num_threads(before)
    assert found[0] == found[1]


def fit_svm(x, y, penalty):
    """Returns slope and intercept of a linear SVM by liblinear's loss, from x [N] and y [N], ±1."""

    def loss(w):
        weight = np.where(y > 0, penalty, 0.01)
        return w @ w / 2 + weight @ np.maximum(0, 1 - y * (w[0] * x + w[1])) ** 2

    return minimize(loss, np.zeros(2), tol=1e-10).x


def test_sap_agrees_with_svms_fitted_by_scipy(sampled_pairs):
    codes, factors = sampled_pairs
    fit, known, score, asked, _ = split_pairs(codes, factors)
    gaps = []
    for v, w in zip(known.T, asked.T, strict=True):
        accuracies = []
        for x, z in zip(fit.T, score.T, strict=True):
            balanced = {k: 0.01 * len(v) / (len(set(v)) * sum(v == k)) for k in sorted(set(v))}
            lines = [fit_svm(x, np.where(v == k, 1, -1), c) for k, c in balanced.items()]
            guesses = np.argmax([slope * z + start for slope, start in lines], 0)
            accuracies.append(np.mean(guesses == w))
        gaps.append(np.diff(sorted(accuracies))[-1])
    assert sap(codes, factors, rng()) == pytest.approx(np.mean(gaps), abs=1e-9)
    assert np.mean(gaps) > 0.05


def fit_logistic_regression(x, y):
    """Returns weights and intercept [D + 1], with L2 penalty 1/2, from x [N, D] and y [N], ±1."""

    def loss(w):
        return w[:-1] @ w[:-1] / 2 + np.logaddexp(0, -y * (x @ w[:-1] + w[-1])).sum()

    return minimize(loss, np.zeros(x.shape[1] + 1), tol=1e-9).x


def test_explicitness_agrees_with_regressions_fitted_by_scipy(sampled_pairs):
    codes, factors = sampled_pairs
    fit, known, score, asked, _ = split_pairs(codes, factors)
    x, z = ((part - fit.mean(0)) / fit.std(0) for part in (fit, score))
    areas = []
    for v, w in zip(known.T, asked.T, strict=True):
        fits = [fit_logistic_regression(x, np.where(v == k, 1, -1)) for k in sorted(set(v))]
        odds = np.stack([1 / (1 + np.exp(-(z @ f[:-1] + f[-1]))) for f in fits])
        odds /= odds.sum(0)
        of_factor = []
        for k, p in enumerate(odds):
            ranks, positive = rankdata(p), w == k
            pairs = positive.sum() * (~positive).sum()
            above = ranks[positive].sum() - positive.sum() * (positive.sum() + 1) / 2
            of_factor.append(above / pairs)
        areas.append(np.mean(of_factor))
    assert explicitness(codes, factors, rng()) == pytest.approx(np.mean(areas), abs=1e-3)


def code_lookup(codes):
    """Returns a function from factors [n, 3] to codes, from the codes [60, D] of the grid."""
    return lambda factors: codes[np.ravel_multi_index(factors.T, SIZES)]


@pytest.fixture
def grid_codes():
    """Codes [60, 4] of the grid from which the shared factor is not always predicted."""
    mixing = np.array([[1.0, 0.6, 0, 0], [0.5, 0, 0.4, 0.01], [0, 0.2, 0.6, 0]])
    codes = GRID @ mixing + 0.3 * rng(1).normal(size=(60, 4)) ** 3 * [1, 1, 1, 0.02]
    return codes * [1, 1, 5, 1]


def draw_factors(generator, shared=None):
    """Draws the factors of one image as a list; `shared` maps factors to fixed values."""
    factors = [generator.integers(size) for size in SIZES]
    for f, value in (shared or {}).items():
        factors[f] = value
    return factors


def fit_softmax_regression(x, y):
    """Fits a multinomial regression with an L2 penalty of 1/2; returns x [n, D] -> classes [n]."""
    x, classes = np.column_stack([x, np.ones(len(x))]), y.max() + 1

    def loss(w):
        w = w.reshape(-1, classes)
        scores = x @ w
        fit = (logsumexp(scores, 1) - scores[np.arange(len(y)), y]).sum()
        slope = x.T @ (softmax(scores, 1) - np.eye(classes)[y])
        slope[:-1] += w[:-1]
        return fit + (w[:-1] ** 2).sum() / 2, slope.ravel()

    w = minimize(loss, np.zeros(x.shape[1] * classes), jac=True).x.reshape(-1, classes)
    return lambda z: np.argmax(np.column_stack([z, np.ones(len(z))]) @ w, 1)


def test_beta_vae_score_agrees_with_loops(grid_codes):
    generator, code = rng(5), {tuple(f): c for f, c in zip(GRID.tolist(), grid_codes, strict=True)}

    def points(count):
        told, labels = [], []
        for _ in range(count):
            f = int(generator.integers(3))
            differences = []
            for _ in range(8):
                first = draw_factors(generator)
                second = draw_factors(generator, {f: first[f]})
                differences.append(abs(code[tuple(first)] - code[tuple(second)]))
            told.append(sum(differences) / 8)
            labels.append(f)
        return np.array(told), np.array(labels)

    classify = fit_softmax_regression(*points(2000))
    x, y = points(3000)
    expected = np.mean(classify(x) == y)
    assert 0.4 < expected < 0.9
    found = beta_vae_score(
        code_lookup(grid_codes), SIZES, rng(), fitted=2000, scored=5000, batch_size=8
    )
    assert found == pytest.approx(expected, abs=0.035)


def test_factor_vae_score_agrees_with_loops(grid_codes):
    generator, code = rng(5), {tuple(f): c for f, c in zip(GRID.tolist(), grid_codes, strict=True)}
    spread = [np.std(c) for c in grid_codes.T]
    assert spread[3] < 0.05 < min(spread[:3])

    def vote():
        f = int(generator.integers(3))
        shared = {f: draw_factors(generator)[f]}
        codes = [code[tuple(draw_factors(generator, shared))] for _ in range(4)]
        ratios = [np.var([c[d] for c in codes]) / spread[d] ** 2 for d in range(3)]
        return ratios.index(min(ratios)), f

    ballots = Counter(vote() for _ in range(2000))
    named = {d: max(range(3), key=lambda f: ballots[d, f]) for d in range(3)}
    expected = np.mean([named[d] == f for d, f in (vote() for _ in range(3000))])
    assert 0.4 < expected < 0.9
    found = factor_vae_score(
        code_lookup(grid_codes), SIZES, rng(), fitted=2000, scored=5000, batch_size=4
    )
    assert found == pytest.approx(expected, abs=0.035)


# Invariances and extreme values.


def mig_chen_of_codes(codes, factors):
    """Returns `mig_chen` with scales of a tenth of each latent's deviation, 1 for a dead latent."""
    spread = codes.std(0)
    return mig_chen(codes, np.where(spread > 0, 0.1 * spread, 1) + 0 * codes, factors, rng(), 4000)


def disentanglement_and_completeness(codes, factors):
    """Returns two of the DCI scores [2]."""
    found = dci(codes, factors, rng())
    return np.array([found["disentanglement"], found["completeness"]])


PAIR_METRICS = {
    "mig": mig,
    "mig_chen": mig_chen_of_codes,
    "dci": disentanglement_and_completeness,
    "sap": lambda codes, factors: sap(codes, factors, rng()),
    "modularity": modularity,
    "explicitness": lambda codes, factors: explicitness(codes, factors, rng()),
    "irs": irs,
}
FIXED_FACTOR_METRICS = {"beta_vae_score": beta_vae_score, "factor_vae_score": factor_vae_score}
TOLERANCE = dict.fromkeys(PAIR_METRICS, 1e-9) | {
    "mig_chen": 0.02,  # the samples differ
    "dci": 0.02,  # ties are broken differently
}
# Maps the score of four latents and a dead one to the score of the four; by default they are equal.
WITHOUT_DEAD_LATENT = {
    "modularity": lambda score: score * 5 / 4,
    "dci": lambda score: 1 - (1 - score) * [1, math.log(5) / math.log(4)],
}


@pytest.mark.parametrize("name", sorted(PAIR_METRICS.keys() - {"sap", "explicitness"}))
def test_perfect_codes_score_one(name):
    factors = np.tile(GRID, (6, 1))
    assert PAIR_METRICS[name](2.0 * factors, factors) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("name", "most"), [("sap", 0.5), ("explicitness", 1)])
def test_perfect_binary_codes_score_the_maximum(name, most):
    factors = np.tile(np.stack(np.unravel_index(np.arange(8), (2, 2, 2)), 1), (100, 1))
    assert PAIR_METRICS[name](2.0 * factors, factors) == pytest.approx(most, abs=0.05)


@pytest.mark.parametrize("name", FIXED_FACTOR_METRICS)
def test_fixed_factor_metrics_of_perfect_codes_are_one(name):
    few = {"fitted": 500, "scored": 500}
    assert FIXED_FACTOR_METRICS[name](code_lookup(2.0 * GRID), SIZES, rng(), **few) == 1
    assert FIXED_FACTOR_METRICS[name](lambda factors: 2.0 * factors, (3, 1, 5), rng(), **few) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "chance", "error"),
    [
        ("mig", 0, 0.01),
        ("mig_chen", 0, 0.01),
        ("dci", 0, 0.05),
        ("sap", 0, 0.05),
        ("explicitness", 0.5, 0.03),
    ],
)
def test_random_codes_score_at_chance_level(name, chance, error):
    codes, factors = rng(1).normal(size=(3000, 4)), GRID[rng(2).integers(60, size=3000)]
    assert PAIR_METRICS[name](codes, factors) == pytest.approx(chance, abs=error)


@pytest.mark.parametrize("name", FIXED_FACTOR_METRICS)
def test_fixed_factor_metrics_of_random_codes_are_at_chance_level(name):
    noise = rng(1)
    found = FIXED_FACTOR_METRICS[name](
        lambda factors: noise.normal(size=(len(factors), 4)), SIZES, rng(), fitted=500, scored=2000
    )
    assert found == pytest.approx(1 / 3, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIR_METRICS)
def test_order_sign_and_constant_columns_do_not_change_score(sampled_pairs, name):
    codes, factors = sampled_pairs
    metric, once = PAIR_METRICS[name], PAIR_METRICS[name](codes, factors)
    same = pytest.approx(once, abs=TOLERANCE[name])
    assert metric(codes[:, [2, 0, 3, 1]], factors) == same
    assert metric(codes * [-1, 1, -1, 1], factors) == same
    assert metric(codes, factors[:, [1, 2, 0]] * 3 - 7) == same
    assert metric(codes, np.insert(factors, 1, 4, axis=1)) == same
    assert (
        WITHOUT_DEAD_LATENT.get(name, float)(metric(np.insert(codes, 1, 0.1, axis=1), factors))
        == same
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PAIR_METRICS.keys() - {"sap", "irs"}))
def test_scale_and_offset_of_latents_do_not_change_score(sampled_pairs, name):
    codes, factors = sampled_pairs
    scaled = PAIR_METRICS[name](codes * [10, 1, 0.1, 3] + [0, 5, 0, 0], factors)
    assert scaled == pytest.approx(
        PAIR_METRICS[name](codes, factors), abs=max(TOLERANCE[name], 1e-6)
    )


@pytest.mark.parametrize("name", FIXED_FACTOR_METRICS)
def test_order_sign_and_dead_latents_do_not_change_fixed_factor_metrics(grid_codes, name):
    def score(codes, sizes=SIZES):
        return FIXED_FACTOR_METRICS[name](
            code_lookup(codes), sizes, rng(), fitted=300, scored=300, batch_size=4
        )

    once = score(grid_codes)
    assert score(grid_codes[:, [2, 0, 3, 1]] * [-1, 1, -1, 1]) == once
    assert score(np.insert(grid_codes, 1, 0.1, axis=1)) == pytest.approx(once, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIR_METRICS)
def test_single_latent_scores_as_with_a_dead_latent(sampled_pairs, name):
    codes, factors = sampled_pairs[0][:, :1], sampled_pairs[1]
    both = PAIR_METRICS[name](np.insert(codes, 1, 0.0, axis=1), factors)
    alone = PAIR_METRICS[name](codes, factors)
    assert alone == pytest.approx(2 * both if name == "modularity" else both, abs=TOLERANCE[name])


@pytest.mark.parametrize("name", PAIR_METRICS)
def test_dead_codes_score_the_minimum(name):
    factors = np.tile(GRID, (5, 1))
    least = 0.5 if name == "explicitness" else 0
    assert PAIR_METRICS[name](np.full((300, 3), 0.1), factors) == pytest.approx(least, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sap", "explicitness"])
def test_factor_value_of_one_image_hardly_changes_score(sampled_pairs, name):
    codes, factors = sampled_pairs
    for image in range(4):  # some are in the part to fit, some in the part to score
        rare = factors.copy()
        rare[image, 0] = 3
        once = PAIR_METRICS[name](codes, factors)
        assert PAIR_METRICS[name](codes, rare) == pytest.approx(once, abs=0.1)


def test_mig_and_mig_chen_of_equal_latents_are_zero():
    codes = np.repeat(GRID[:, :1], 2, axis=1) * 1.0
    assert mig(codes, GRID) == pytest.approx(0)
    assert mig_chen(codes, np.full((60, 2), 1e-3), GRID, rng()) == pytest.approx(0, abs=1e-5)


def test_factor_vae_score_of_dead_codes_is_zero():
    assert factor_vae_score(lambda factors: np.zeros((len(factors), 2)), SIZES, rng()) == 0


# Errors.


@pytest.mark.parametrize("name", sorted(PAIR_METRICS.keys() - {"mig_chen"}))
@pytest.mark.parametrize(
    ("codes", "factors", "message"),
    [
        (np.where(np.arange(60) == 3, np.nan, 1.0)[:, None], GRID, "codes of 1 of 60 images"),
        (np.zeros((59, 2)), GRID, r"codes \(59, 2\) and factors \(60, 3\)"),
        (np.zeros(60), GRID, r"should be \(N, D\) and \(N, F\)"),
        (np.zeros((0, 2)), GRID[:0], r"codes \(0, 2\)"),
        (np.zeros((60, 2)), GRID / 2, "float64, but should be integers"),
        (np.zeros((60, 2)), 0 * GRID, "no factor has more than one value"),
    ],
)
def test_metrics_refuse_invalid_codes_and_factors(name, codes, factors, message):
    with pytest.raises(UserError, match=message):
        PAIR_METRICS[name](codes, factors)


def test_sap_refuses_too_few_images():
    with pytest.raises(UserError, match="2 images are too few"):
        sap(np.zeros((2, 2)), GRID[:2], rng())


@pytest.mark.parametrize("scales", [np.zeros((60, 3)), np.ones((60, 2)), np.full((60, 3), np.inf)])
def test_mig_chen_refuses_invalid_scales(scales):
    with pytest.raises(UserError, match="positive number for each mean"):
        mig_chen(1.0 * GRID, scales, GRID, rng())


@pytest.mark.parametrize("name", FIXED_FACTOR_METRICS)
def test_fixed_factor_metrics_refuse_constant_factors_and_infinite_codes(name):
    with pytest.raises(UserError, match="two or more vary"):
        FIXED_FACTOR_METRICS[name](lambda factors: 1.0 * factors, (1, 5, 1), rng())
    with pytest.raises(UserError, match="are not finite"):
        FIXED_FACTOR_METRICS[name](lambda factors: np.full((len(factors), 2), np.inf), SIZES, rng())


def test_beta_vae_score_of_points_that_share_one_factor_is_refused():
    with pytest.raises(UserError, match="1 points are too few, as they all share one factor"):
        beta_vae_score(lambda f: f.astype(float), [3, 3], np.random.default_rng(0), fitted=1)
