"""Each metric against a slow one that shares no code with it, and against what it should say."""

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

DSPRITES = (3, 6, 40, 32, 32)
SMALL = (3, 4, 5)
GRID = np.stack(np.unravel_index(np.arange(60), SMALL), 1)  # every combination once


def rng(seed=0):
    return np.random.default_rng(seed)


# Known values.


@pytest.fixture(scope="module")
def sprites():
    """10,000 draws of the factors of dSprites, and as many of twice five unrelated Gaussians."""
    legacy = np.random.RandomState(0)  # whose draws give the published values
    factors = np.stack([legacy.randint(size, size=10_000) for size in DSPRITES], 1)
    return factors, legacy.randn(10_000, 5), legacy.randn(10_000, 5)


def test_mig_of_known_codes_is_the_published_one(sprites):
    factors, noise, more = sprites
    angle = 2 * np.pi / 40 * factors[:, [2]]
    circle = np.hstack([np.delete(factors, 2, 1), np.sin(angle), np.cos(angle), noise])
    assert mig(np.hstack([factors, noise]), factors) == pytest.approx(0.895, abs=5e-4)
    assert mig(np.hstack([factors, noise]), factors, bins=40) == pytest.approx(0.987, abs=5e-4)
    assert mig(circle, factors) == pytest.approx(0.736, abs=5e-4)
    assert mig(np.hstack([noise, more]), factors) == pytest.approx(0.000, abs=5e-4)


def test_mig_of_rotated_codes(sprites):
    """All of a gap is gone at 45 degrees between two latents, and much of it in any rotation."""
    factors, *_ = sprites
    perfect = (factors - factors.mean(0)) / factors.std(0)
    x, y = perfect[:, 3], perfect[:, 4]
    turned = np.column_stack([perfect[:, :3], x - y, x + y])
    assert mig(turned, factors) == pytest.approx(
        mig(perfect[:, :3], factors[:, :3]) * 3 / 5, abs=0.01
    )
    turns = special_ortho_group.rvs(5, size=5, random_state=0)
    assert max(mig(perfect @ turn, factors) for turn in turns) < 0.4


# Independent implementations.


@pytest.fixture
def blurred():
    """Codes [300, 4] that each tell something of several of the factors [300, 3], and noise."""
    factors = GRID[rng().integers(60, size=300)]
    mixing = rng(1).normal(size=(3, 4)) * [1, 1, 0.3, 0]
    return factors @ mixing + 0.5 * rng(2).normal(size=(300, 4)), factors


def information(xs, ys):
    """Mutual information in nats, by counting."""
    both, x_counts, y_counts, count = (
        Counter(zip(xs, ys, strict=True)),
        Counter(xs),
        Counter(ys),
        len(xs),
    )
    return sum(
        n / count * math.log(n * count / (x_counts[x] * y_counts[y])) for (x, y), n in both.items()
    )


def bins_of(code, bins):
    low, width = min(code), (max(code) - min(code)) / bins
    return [min(int((value - low) / width), bins - 1) for value in code]


def information_table(codes, factors, bins):
    return [[information(bins_of(list(c), bins), list(f)) for c in codes.T] for f in factors.T]


@pytest.mark.parametrize("bins", [3, 20])
def test_mig_counts(blurred, bins):
    codes, factors = blurred
    gaps = []
    for row, factor in zip(information_table(codes, factors, bins), factors.T, strict=True):
        second, first = sorted(row)[-2:]
        gaps.append((first - second) / information(list(factor), list(factor)))
    assert mig(codes, factors, bins) == pytest.approx(sum(gaps) / 3, rel=1e-9)


@pytest.mark.parametrize("bins", [3, 20])
def test_modularity_is_the_distance_from_a_template(blurred, bins):
    codes, factors = blurred
    scores = []
    for told in np.transpose(information_table(codes, factors, bins)):
        template = np.zeros(3)
        template[told.argmax()] = told.max()
        scores.append(1 - sum((told - template) ** 2) / (told.max() ** 2 * 2))
    assert modularity(codes, factors, bins) == pytest.approx(np.mean(scores), rel=1e-9)


@pytest.mark.parametrize("quantile", [0.9, 0.99, 1.0])
def test_irs_by_loops(blurred, quantile):
    codes, factors = blurred
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


def mixture(at, means, scales):
    return norm.pdf(at[:, None], means, scales).mean(1)


def test_mig_chen_is_the_gap_of_integrals():
    means = GRID @ np.array([[1.0, 0.3], [0.2, 0.5], [0.0, 1.0]]) + 100.0
    scales = rng().uniform(0.1, 0.6, means.shape)
    at = np.linspace(90, 115, 5_001)
    gaps = []
    for factor in GRID.T:
        told = []
        for mean, scale in zip(means.T, scales.T, strict=True):
            everywhere, total = mixture(at, mean, scale), 0.0
            for value in set(factor):
                here = mixture(at, mean[factor == value], scale[factor == value])
                ratio = np.log(np.maximum(here, 1e-300) / np.maximum(everywhere, 1e-300))
                total += np.mean(factor == value) * trapezoid(here * ratio, at)
            told.append(total)
        gaps.append(abs(told[0] - told[1]) / math.log(len(set(factor))))
    found = mig_chen(means, scales, GRID, rng(), samples=100_000)
    assert found == pytest.approx(np.mean(gaps), abs=0.006)
    assert 0.3 < found < 0.6


def test_a_mixture_in_single_precision_is_that_of_scipy(monkeypatch):
    monkeypatch.setattr(mixtures, "CHUNK", 64)
    means, scales = 1000 + rng(0).normal(size=(60, 2)), rng(1).uniform(0.01, 1, (60, 2))
    z = rng(2).normal(means, scales)[:50]
    exact = logsumexp(norm.logpdf(z[:, None], means, scales), 1) - math.log(60)
    found = mixtures.log_latent_mixtures(z, means, scales) - math.log(2 * math.pi) / 2
    np.testing.assert_allclose(found, exact, atol=1e-4)


def parts(codes, factors):
    """The split that the metrics make with `rng()`, and the generator after it."""
    generator = rng()
    order = generator.permutation(len(codes))
    score, fit = order[: len(codes) // 3], order[len(codes) // 3 :]
    return codes[fit], factors[fit], codes[score], factors[score], generator


def dci_of(importance, guesses, asked):
    def unevenness(shares):
        shares = [share / sum(shares) for share in shares]
        return 1 + sum(p * math.log(p) for p in shares if p) / math.log(len(shares))

    total = importance.sum()
    return {
        "disentanglement": sum(sum(row) / total * unevenness(row) for row in importance),
        "completeness": sum(sum(part) / total * unevenness(part) for part in importance.T),
        "informativeness": np.mean(guesses == asked),
    }


def test_dci_is_that_of_the_literatures_trees(blurred):
    codes, factors = blurred[0][:200], blurred[1][:200, :2]
    fit, known, score, asked, generator = parts(codes, factors)
    importance, guesses = [], []
    for v in known.T:
        model = GradientBoostingClassifier(random_state=int(generator.integers(2**31)))
        importance.append(model.fit(fit, v).feature_importances_)
        guesses.append(model.predict(score))
    expected = dci_of(np.transpose(importance), np.transpose(guesses), asked)
    assert dci(codes, factors, rng()) == pytest.approx(expected)


def test_importances_below_zero_by_rounding_are_zero(blurred, monkeypatch):
    parts = np.array([0.6, 0.4 + 1e-17, -1e-17, 0.0])
    monkeypatch.setattr(GradientBoostingClassifier, "feature_importances_", parts)
    found = dci(blurred[0][:200], blurred[1][:200, :2], rng())
    assert found["completeness"] == pytest.approx(1 - entropy([0.6, 0.4]) / math.log(4))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equally_good_latents_share_a_factor(seed):
    """Each factor is twice in the codes: half of the importance is in either."""
    factors = np.stack([rng(seed).permuted(np.arange(1200) % size) for size in (3, 4, 5)], 1)
    twice = np.concatenate([factors, factors], 1).astype(float)
    found = dci(twice, factors, rng(seed))
    assert found["disentanglement"] == pytest.approx(1, abs=1e-3)
    assert found["completeness"] == pytest.approx(1 - math.log(2) / math.log(6), abs=0.02)


def test_dci_is_the_same_for_any_number_of_threads(blurred):
    codes, factors = blurred[0][:300], blurred[1][:300]
    before = torch.get_num_threads()
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        found.append(dci(codes, factors, rng()))
    torch.set_num_threads(before)
    assert found[0] == found[1]


def machine(x, y, penalty):
    """Slope and intercept of one class against the rest, by the loss that liblinear names."""

    def loss(w):
        weight = np.where(y > 0, penalty, 0.01)
        return w @ w / 2 + weight @ np.maximum(0, 1 - y * (w[0] * x + w[1])) ** 2

    return minimize(loss, np.zeros(2), tol=1e-10).x


def test_sap_from_machines_by_hand(blurred):
    codes, factors = blurred
    fit, known, score, asked, _ = parts(codes, factors)
    gaps = []
    for v, w in zip(known.T, asked.T, strict=True):
        accuracies = []
        for x, z in zip(fit.T, score.T, strict=True):
            balanced = {k: 0.01 * len(v) / (len(set(v)) * sum(v == k)) for k in sorted(set(v))}
            lines = [machine(x, np.where(v == k, 1, -1), c) for k, c in balanced.items()]
            guesses = np.argmax([slope * z + start for slope, start in lines], 0)
            accuracies.append(np.mean(guesses == w))
        gaps.append(np.diff(sorted(accuracies))[-1])
    assert sap(codes, factors, rng()) == pytest.approx(np.mean(gaps), abs=1e-9)
    assert np.mean(gaps) > 0.05


def regression(x, y):
    """Weights and intercept of logistic regression with half the squared weights as a penalty."""

    def loss(w):
        return w[:-1] @ w[:-1] / 2 + np.logaddexp(0, -y * (x @ w[:-1] + w[-1])).sum()

    return minimize(loss, np.zeros(x.shape[1] + 1), tol=1e-9).x


def test_explicitness_from_regressions_by_hand(blurred):
    codes, factors = blurred
    fit, known, score, asked, _ = parts(codes, factors)
    x, z = ((part - fit.mean(0)) / fit.std(0) for part in (fit, score))
    areas = []
    for v, w in zip(known.T, asked.T, strict=True):
        fits = [regression(x, np.where(v == k, 1, -1)) for k in sorted(set(v))]
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


def lookup(codes):
    """The codes [60, D] of the images of the grid."""
    return lambda factors: codes[np.ravel_multi_index(factors.T, SMALL)]


@pytest.fixture
def tangled():
    """Codes [60, 4] of the grid that do not always betray what two images share."""
    mixing = np.array([[1.0, 0.6, 0, 0], [0.5, 0, 0.4, 0.01], [0, 0.2, 0.6, 0]])
    codes = GRID @ mixing + 0.3 * rng(1).normal(size=(60, 4)) ** 3 * [1, 1, 1, 0.02]
    return codes * [1, 1, 5, 1]


def draw(generator, shared=None):
    factors = [generator.integers(size) for size in SMALL]
    for f, value in (shared or {}).items():
        factors[f] = value
    return factors


def softmax_regression(x, y):
    """Predicts by multinomial regression with half the squared weights as a penalty."""
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


def test_beta_vae_score_by_loops(tangled):
    generator, code = rng(5), {tuple(f): c for f, c in zip(GRID.tolist(), tangled, strict=True)}

    def points(count):
        told, labels = [], []
        for _ in range(count):
            f = int(generator.integers(3))
            differences = []
            for _ in range(8):
                first = draw(generator)
                second = draw(generator, {f: first[f]})
                differences.append(abs(code[tuple(first)] - code[tuple(second)]))
            told.append(sum(differences) / 8)
            labels.append(f)
        return np.array(told), np.array(labels)

    classify = softmax_regression(*points(2000))
    x, y = points(3000)
    expected = np.mean(classify(x) == y)
    assert 0.4 < expected < 0.9
    found = beta_vae_score(lookup(tangled), SMALL, rng(), fitted=2000, scored=5000, batch_size=8)
    assert found == pytest.approx(expected, abs=0.035)


def test_factor_vae_score_by_loops(tangled):
    generator, code = rng(5), {tuple(f): c for f, c in zip(GRID.tolist(), tangled, strict=True)}
    spread = [np.std(c) for c in tangled.T]
    assert spread[3] < 0.05 < min(spread[:3])

    def vote():
        f = int(generator.integers(3))
        shared = {f: draw(generator)[f]}
        codes = [code[tuple(draw(generator, shared))] for _ in range(4)]
        ratios = [np.var([c[d] for c in codes]) / spread[d] ** 2 for d in range(3)]
        return ratios.index(min(ratios)), f

    ballots = Counter(vote() for _ in range(2000))
    named = {d: max(range(3), key=lambda f: ballots[d, f]) for d in range(3)}
    expected = np.mean([named[d] == f for d, f in (vote() for _ in range(3000))])
    assert 0.4 < expected < 0.9
    found = factor_vae_score(lookup(tangled), SMALL, rng(), fitted=2000, scored=5000, batch_size=4)
    assert found == pytest.approx(expected, abs=0.035)


# Laws.


def chen(codes, factors):
    spread = codes.std(0)
    return mig_chen(codes, np.where(spread > 0, 0.1 * spread, 1) + 0 * codes, factors, rng(), 4000)


def trees(codes, factors):
    found = dci(codes, factors, rng())
    return np.array([found["disentanglement"], found["completeness"]])


PAIRED = {
    "mig": mig,
    "mig_chen": chen,
    "dci": trees,
    "sap": lambda codes, factors: sap(codes, factors, rng()),
    "modularity": modularity,
    "explicitness": lambda codes, factors: explicitness(codes, factors, rng()),
    "irs": irs,
}
SAMPLED = {"beta_vae_score": beta_vae_score, "factor_vae_score": factor_vae_score}
EXACT = dict.fromkeys(PAIRED, 1e-9) | {
    "mig_chen": 0.02,  # draws other samples
    "dci": 0.02,  # settles ties in another way
}
DEAD = {  # from the score with a fifth latent, a dead one, to that of the other four
    "modularity": lambda score: score * 5 / 4,
    "dci": lambda score: 1 - (1 - score) * [1, math.log(5) / math.log(4)],
}


@pytest.mark.parametrize("name", sorted(PAIRED.keys() - {"sap", "explicitness"}))
def test_perfect_codes_score_one(name):
    factors = np.tile(GRID, (6, 1))
    assert PAIRED[name](2.0 * factors, factors) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("name", "most"), [("sap", 0.5), ("explicitness", 1)])
def test_perfect_codes_of_two_values_score_the_most(name, most):
    factors = np.tile(np.stack(np.unravel_index(np.arange(8), (2, 2, 2)), 1), (100, 1))
    assert PAIRED[name](2.0 * factors, factors) == pytest.approx(most, abs=0.05)


@pytest.mark.parametrize("name", SAMPLED)
def test_perfect_codes_betray_the_shared_factor(name):
    few = {"fitted": 500, "scored": 500}
    assert SAMPLED[name](lookup(2.0 * GRID), SMALL, rng(), **few) == 1
    assert SAMPLED[name](lambda factors: 2.0 * factors, (3, 1, 5), rng(), **few) == 1


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
def test_random_codes_score_chance(name, chance, error):
    codes, factors = rng(1).normal(size=(3000, 4)), GRID[rng(2).integers(60, size=3000)]
    assert PAIRED[name](codes, factors) == pytest.approx(chance, abs=error)


@pytest.mark.parametrize("name", SAMPLED)
def test_random_codes_betray_nothing(name):
    noise = rng(1)
    found = SAMPLED[name](
        lambda factors: noise.normal(size=(len(factors), 4)), SMALL, rng(), fitted=500, scored=2000
    )
    assert found == pytest.approx(1 / 3, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRED)
def test_order_sign_and_dead_companions_do_not_matter(blurred, name):
    codes, factors = blurred
    metric, once = PAIRED[name], PAIRED[name](codes, factors)
    same = pytest.approx(once, abs=EXACT[name])
    assert metric(codes[:, [2, 0, 3, 1]], factors) == same
    assert metric(codes * [-1, 1, -1, 1], factors) == same
    assert metric(codes, factors[:, [1, 2, 0]] * 3 - 7) == same
    assert metric(codes, np.insert(factors, 1, 4, axis=1)) == same
    assert DEAD.get(name, float)(metric(np.insert(codes, 1, 0.1, axis=1), factors)) == same


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PAIRED.keys() - {"sap", "irs"}))
def test_the_scale_of_a_latent_does_not_matter(blurred, name):
    codes, factors = blurred
    scaled = PAIRED[name](codes * [10, 1, 0.1, 3] + [0, 5, 0, 0], factors)
    assert scaled == pytest.approx(PAIRED[name](codes, factors), abs=max(EXACT[name], 1e-6))


@pytest.mark.parametrize("name", SAMPLED)
def test_a_shared_factor_shows_whatever_the_latents_order(tangled, name):
    def score(codes, sizes=SMALL):
        return SAMPLED[name](lookup(codes), sizes, rng(), fitted=300, scored=300, batch_size=4)

    once = score(tangled)
    assert score(tangled[:, [2, 0, 3, 1]] * [-1, 1, -1, 1]) == once
    assert score(np.insert(tangled, 1, 0.1, axis=1)) == pytest.approx(once, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRED)
def test_a_single_latent_has_a_dead_one_for_company(blurred, name):
    codes, factors = blurred[0][:, :1], blurred[1]
    both = PAIRED[name](np.insert(codes, 1, 0.0, axis=1), factors)
    alone = PAIRED[name](codes, factors)
    assert alone == pytest.approx(2 * both if name == "modularity" else both, abs=EXACT[name])


@pytest.mark.parametrize("name", PAIRED)
def test_dead_codes_score_the_least(name):
    factors = np.tile(GRID, (5, 1))
    least = 0.5 if name == "explicitness" else 0
    assert PAIRED[name](np.full((300, 3), 0.1), factors) == pytest.approx(least, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sap", "explicitness"])
def test_a_value_that_only_one_image_has_does_no_harm(blurred, name):
    codes, factors = blurred
    for image in range(4):  # some are fitted, some scored
        rare = factors.copy()
        rare[image, 0] = 3
        once = PAIRED[name](codes, factors)
        assert PAIRED[name](codes, rare) == pytest.approx(once, abs=0.1)


def test_two_latents_that_tell_the_same_leave_no_gap():
    codes = np.repeat(GRID[:, :1], 2, axis=1) * 1.0
    assert mig(codes, GRID) == pytest.approx(0)
    assert mig_chen(codes, np.full((60, 2), 1e-3), GRID, rng()) == pytest.approx(0, abs=1e-5)


# Refusals.


def test_of_dead_codes_no_latent_has_a_vote():
    assert factor_vae_score(lambda factors: np.zeros((len(factors), 2)), SMALL, rng()) == 0


@pytest.mark.parametrize("name", sorted(PAIRED.keys() - {"mig_chen"}))
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
def test_refuses_codes_and_factors_that_are_no_pair(name, codes, factors, message):
    with pytest.raises(UserError, match=message):
        PAIRED[name](codes, factors)


def test_refuses_too_few_images():
    with pytest.raises(UserError, match="2 images are too few"):
        sap(np.zeros((2, 2)), GRID[:2], rng())


@pytest.mark.parametrize("scales", [np.zeros((60, 3)), np.ones((60, 2)), np.full((60, 3), np.inf)])
def test_mig_chen_refuses_scales_that_are_none(scales):
    with pytest.raises(UserError, match="positive number for each mean"):
        mig_chen(1.0 * GRID, scales, GRID, rng())


@pytest.mark.parametrize("name", SAMPLED)
def test_refuses_what_cannot_be_told(name):
    with pytest.raises(UserError, match="two or more vary"):
        SAMPLED[name](lambda factors: 1.0 * factors, (1, 5, 1), rng())
    with pytest.raises(UserError, match="are not finite"):
        SAMPLED[name](lambda factors: np.full((len(factors), 2), np.inf), SMALL, rng())
