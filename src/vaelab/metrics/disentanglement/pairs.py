"""Validation and splitting of codes paired with the factors that made their images.

Shapes: N images, D latents, F factors.
"""

import numpy as np

from vaelab.errors import UserError

Array = np.ndarray


def prepare_pairs(codes: Array, factors: Array) -> tuple[Array, Array]:
    """Returns float64 codes and the factors that vary, renumbered from zero; may raise UserError.

    Factors with a single value are left out.

    Args:
        codes: Posterior means [N, D].
        factors: Integers [N, F].

    Raises:
        UserError: If the shapes do not fit, factors are not integers, a code is not finite, or no
            factor varies.
    """
    codes, factors = as_finite_codes(codes), np.asarray(factors)
    if codes.ndim != 2 or factors.ndim != 2 or len(codes) != len(factors) or not codes.size:
        raise UserError(
            f"codes {codes.shape} and factors {factors.shape} should be (N, D) and (N, F)"
        )
    if not np.issubdtype(factors.dtype, np.integer):
        raise UserError(f"factors are {factors.dtype}, but should be integers")
    factors = factors[:, varying_columns(factors)]
    if not factors.size:
        raise UserError("no factor has more than one value")
    return codes, np.stack([np.unique(f, return_inverse=True)[1] for f in factors.T], 1)


def as_finite_codes(codes: Array) -> Array:
    """Returns codes [N, ...] as float64; raises UserError if any of them is not finite."""
    codes = np.asarray(codes, np.float64)
    broken = np.count_nonzero(~np.isfinite(codes).all(tuple(range(1, codes.ndim))))
    if broken:
        raise UserError(f"the codes of {broken:,} of {len(codes):,} images are not finite")
    return codes


def varying_columns(columns: Array) -> Array:
    """Returns a mask [C] of the columns of an array [N, C] that have more than one value."""
    return (columns != columns[:1]).any(0)


def split_pairs(
    codes: Array, factors: Array, rng: np.random.Generator
) -> tuple[Array, Array, Array, Array]:
    """Returns codes and factors to fit, a random two thirds, and to score; drops constant factors.

    15,000 images make the 10,000 and 5,000 of Locatello et al. (2019). Factors are kept only if
    they vary in both parts.

    Raises:
        UserError: As `prepare_pairs` does, or if no factor varies in both parts.
    """
    codes, factors = prepare_pairs(codes, factors)
    score, fit = np.split(rng.permutation(len(codes)), [len(codes) // 3])
    kept = varying_columns(factors[fit]) & varying_columns(factors[score])
    if not kept.any():
        raise UserError(f"{len(codes):,} images are too few to fit and to score")
    return codes[fit], factors[fit][:, kept], codes[score], factors[score][:, kept]
