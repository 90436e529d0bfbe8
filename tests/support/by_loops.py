"""Estimates of q(z) on a batch, one number at a time."""

import math


def log_weighted(i, densities, images):
    """Log q(z) at z from x_i, by the q(z | x_j) of a batch."""
    return math.log(sum(densities) / (images * len(densities)))


def log_stratified(i, densities, images):
    """The same; with the jackknife over the images that stand for all others."""
    own, others = densities[i], [d for j, d in enumerate(densities) if j != i]
    count = len(others)

    def log_estimate(others):
        return math.log((own + (images - 1) * sum(others) / len(others)) / images)

    plain = log_estimate(others)
    if count < 2:
        return plain
    left_out = [log_estimate(others[:j] + others[j + 1 :]) for j in range(count)]
    jackknifed = count * plain - (count - 1) * sum(left_out) / count
    return plain + (1 - count / (images - 1)) * (jackknifed - plain)


LOG_ESTIMATES = {"weighted": log_weighted, "stratified": log_stratified}
