"""Estimates of the aggregate posterior log q(z) on a batch, by plain Python loops.

For z drawn from q(z | x_i): `densities` are q(z | x_j) of the batch, and `images` is N, the size of
the data set.
"""

import math


def log_weighted(i, densities, images):
    """Returns log q(z), estimated with all images of the batch weighted alike."""
    return math.log(sum(densities) / (images * len(densities)))


def log_stratified(i, densities, images):
    """Returns log q(z) with weight 1 / N for x_i; the others, jackknifed, stand for the rest."""
    own, others = densities[i], [d for j, d in enumerate(densities) if j != i]
    count = len(others)

    def log_estimate(others):
        """Returns the estimate without bias correction from some other images."""
        return math.log((own + (images - 1) * sum(others) / len(others)) / images)

    plain = log_estimate(others)
    if count < 2:
        return plain
    left_out = [log_estimate(others[:j] + others[j + 1 :]) for j in range(count)]
    jackknifed = count * plain - (count - 1) * sum(left_out) / count
    return plain + (1 - count / (images - 1)) * (jackknifed - plain)


LOG_ESTIMATES = {"weighted": log_weighted, "stratified": log_stratified}
