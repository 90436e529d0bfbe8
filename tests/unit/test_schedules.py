"""Annealing schedules against exact values and the formula of Fu et al. (2019)."""

import math
from functools import partial
from itertools import pairwise

import pytest

from vaelab.training.schedules import cosine, cyclical, linear, sigmoid

ROOT = math.sqrt(0.5)
SCHEDULES = {"linear": linear, "cosine": cosine, "sigmoid": sigmoid, "cyclical": cyclical}


def logistic(x):
    return 1 / (1 + math.exp(-x))


def rescaled_logistic(x, half):
    """Returns the logistic function at x, rescaled to be 0 at -half and 1 at half."""
    return (logistic(x) - logistic(-half)) / (logistic(half) - logistic(-half))


@pytest.mark.parametrize(
    ("schedule", "step", "steps", "factor"),
    [
        (linear, 0, 8, 0.0),
        (linear, 1, 8, 0.125),
        (linear, 4, 8, 0.5),
        (linear, 7, 8, 0.875),
        (linear, 8, 8, 1.0),
        (linear, 0, 1, 0.0),
        (linear, 1, 1, 1.0),
        (cosine, 0, 8, 0.0),
        (cosine, 2, 8, 0.5 - 0.5 * ROOT),
        (cosine, 4, 8, 0.5),
        (cosine, 6, 8, 0.5 + 0.5 * ROOT),
        (cosine, 8, 8, 1.0),
        (sigmoid, 0, 8, 0.0),
        (sigmoid, 2, 8, rescaled_logistic(-2.5, 5)),
        (sigmoid, 4, 8, 0.5),
        (sigmoid, 6, 8, rescaled_logistic(2.5, 5)),
        (sigmoid, 8, 8, 1.0),
        (partial(sigmoid, sharpness=4.0), 2, 8, rescaled_logistic(-1, 2)),
        # Fu et al. (2019): M = 4 cycles of 10 steps, which rise over R = 1/2 of their length.
        (cyclical, 0, 40, 0.0),
        (cyclical, 1, 40, 0.2),
        (cyclical, 4, 40, 0.8),
        (cyclical, 5, 40, 1.0),
        (cyclical, 9, 40, 1.0),
        (cyclical, 10, 40, 0.0),
        (cyclical, 12, 40, 0.4),
        (cyclical, 20, 40, 0.0),
        (cyclical, 30, 40, 0.0),
        (cyclical, 31, 40, 0.2),
        (cyclical, 39, 40, 1.0),
        (cyclical, 40, 40, 1.0),
        (cyclical, 5, 10, 0.0),  # cycles of two and a half steps
        (cyclical, 6, 10, 0.8),
        (cyclical, 1, 10, 0.8),
        (partial(cyclical, cycles=1, ramp=0.25), 1, 8, 0.5),
        (partial(cyclical, cycles=1, ramp=0.25), 2, 8, 1.0),
        (partial(cyclical, cycles=2, ramp=1.0), 3, 8, 0.75),
        (partial(cyclical, cycles=2, ramp=1.0), 4, 8, 0.0),
    ],
)
def test_schedules_match_exact_values(schedule, step, steps, factor):
    assert schedule(step, steps=steps) == pytest.approx(factor, abs=1e-12)


@pytest.mark.parametrize("steps", [1, 3, 7, 100])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_start_at_zero_and_end_at_one(schedule, steps):
    schedule = SCHEDULES[schedule]
    assert schedule(0, steps=steps) == 0
    for step in (steps, steps + 1, 10 * steps + 3):
        assert schedule(step, steps=steps) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "sigmoid"])
def test_linear_cosine_sigmoid_rise_and_are_symmetric(schedule):
    factors = [SCHEDULES[schedule](step, steps=50) for step in range(51)]
    assert all(a < b for a, b in pairwise(factors))
    assert factors == pytest.approx([1 - f for f in reversed(factors)], abs=1e-12)


@pytest.mark.parametrize("cycles", [1, 3, 4])
@pytest.mark.parametrize("ramp", [0.3, 0.5, 1.0])
def test_cyclical_matches_formula_of_fu_et_al(cycles, ramp):
    """Eq. 6-7: f(tau) = tau / R up to R, then 1, with tau = mod(t - 1, T / M) / (T / M)."""
    length = 12
    steps = cycles * length
    for step in range(steps):
        tau = step % length / length
        expected = tau / ramp if tau <= ramp else 1.0
        assert cyclical(step, steps=steps, cycles=cycles, ramp=ramp) == pytest.approx(expected)


@pytest.mark.parametrize("sharpness", [1e-20, 1e-3, 50.0, 2000.0])
def test_sigmoid_is_accurate_for_extreme_sharpness(sharpness):
    schedule = partial(sigmoid, steps=10, sharpness=sharpness)
    assert [schedule(step) for step in (0, 5, 10)] == pytest.approx([0, 0.5, 1], abs=1e-9)
