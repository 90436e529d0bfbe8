"""Disentanglement, completeness and informativeness. N images, D latents, F factors."""

from typing import Any

import numpy as np

from vaelab.metrics.disentanglement.pairs import Array, split


def dci(
    codes: Array, factors: Array, rng: np.random.Generator, exact: bool = False
) -> dict[str, float]:
    """The scores of Eastwood & Williams (2018), openreview.net/forum?id=By-7dz-AZ, section 2.

    All from how much each latent matters to boosted trees that predict a factor: `disentanglement`
    is one minus the entropy of a latent's part in the factors, averaged over latents by how much
    they matter; `completeness` the same of a factor's part in the latents; `informativeness` the
    accuracy for images that were not fitted, averaged over factors.

    Other trees give other values, random forests smaller ones. The figures of Locatello et al.
    (2019) are from the `exact` ones; the same over 255 quantiles of each latent come within 0.04
    of them in a thirtieth of the time, ten seconds against five minutes for dSprites.

    Args:
        codes: Posterior means [N, D]; two thirds of them are fitted, the others scored.
        factors: Integers [N, F].
        rng: Draws the split, and settles ties.
        exact: Whether the trees may split between any two codes.
    """
    fit, known, score, asked = split(codes, factors, rng)
    importance, accuracy = [], []
    for v, w in zip(known.T, asked.T, strict=True):
        model = trees(exact, seed=int(rng.integers(2**31))).fit(fit, v)
        importance.append(importances(model))
        accuracy.append(model.score(score, w))
    return {
        "disentanglement": concentration(np.stack(importance, 1)),
        "completeness": concentration(np.stack(importance)),
        "informativeness": float(np.mean(accuracy)),
    }


def trees(exact: bool, seed: int) -> Any:
    """A hundred trees of depth 3 for each value of a factor, as in disentanglement_lib."""
    from sklearn import ensemble  # slow to import

    if exact:
        return ensemble.GradientBoostingClassifier(random_state=seed)
    return ensemble.HistGradientBoostingClassifier(
        max_depth=3, min_samples_leaf=1, early_stopping=False, random_state=seed
    )


def importances(model: Any) -> Array:
    """How much each latent lowered the loss where trees split on it, as parts of all [D]."""
    if hasattr(model, "feature_importances_"):
        return np.maximum(model.feature_importances_, 0)  # rounding takes some below
    # scikit-learn offers no such sum for these trees, so it is read from their nodes.
    nodes = np.concatenate([tree.nodes for stage in model._predictors for tree in stage])
    splits = nodes[nodes["is_leaf"] == 0]
    gains = np.bincount(splits["feature_idx"], splits["gain"], minlength=model.n_features_in_)
    return gains / max(gains.sum(), np.finfo(float).tiny)


def concentration(importance: Array) -> float:
    """One minus the entropy of each row's parts over its maximum, averaged by the rows' sums."""
    from scipy.stats import entropy  # slow to import

    rows = importance[importance.sum(1) > 0]
    if not rows.size:
        return 0.0
    entropies = entropy(rows, axis=1) / np.log(max(rows.shape[1], 2))
    return float(np.average(1 - entropies, weights=rows.sum(1)))
