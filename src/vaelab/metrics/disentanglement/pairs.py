"""Codes beside the factors that made their images. N images, D latents, F factors."""

import numpy as np

from vaelab.errors import UserError

Array = np.ndarray


def checked(codes: Array, factors: Array) -> tuple[Array, Array]:
    """The codes in double precision, and the factors that vary, their values counted from zero.

    Args:
        codes: Posterior means [N, D].
        factors: Integers [N, F]. A factor of one value says nothing and is left out.

    Raises:
        UserError: If they are no such pair, a code is not finite, or no factor varies.
    """
    codes, factors = finite(codes), np.asarray(factors)
    if codes.ndim != 2 or factors.ndim != 2 or len(codes) != len(factors) or not codes.size:
        raise UserError(
            f"codes {codes.shape} and factors {factors.shape} should be (N, D) and (N, F)"
        )
    if not np.issubdtype(factors.dtype, np.integer):
        raise UserError(f"factors are {factors.dtype}, but should be integers")
    factors = factors[:, varies(factors)]
    if not factors.size:
        raise UserError("no factor has more than one value")
    return codes, np.stack([np.unique(f, return_inverse=True)[1] for f in factors.T], 1)


def finite(codes: Array) -> Array:
    """The codes [N, ...] in double precision; raises UserError if one is not finite."""
    codes = np.asarray(codes, np.float64)
    broken = np.count_nonzero(~np.isfinite(codes).all(tuple(range(1, codes.ndim))))
    if broken:
        raise UserError(f"the codes of {broken:,} of {len(codes):,} images are not finite")
    return codes


def varies(columns: Array) -> Array:
    """Which columns of an array [N, C] have more than one value, [C]."""
    return (columns != columns[:1]).any(0)


def split(
    codes: Array, factors: Array, rng: np.random.Generator
) -> tuple[Array, Array, Array, Array]:
    """Codes and factors to fit, two thirds of the images at random, and those to score.

    15,000 images make the 10,000 and 5,000 of Locatello et al. (2019). Only factors that vary in
    both parts are kept.
    """
    codes, factors = checked(codes, factors)
    score, fit = np.split(rng.permutation(len(codes)), [len(codes) // 3])
    kept = varies(factors[fit]) & varies(factors[score])
    if not kept.any():
        raise UserError(f"{len(codes):,} images are too few to fit and to score")
    return codes[fit], factors[fit][:, kept], codes[score], factors[score][:, kept]
