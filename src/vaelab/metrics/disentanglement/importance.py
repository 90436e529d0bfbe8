"""Disentanglement, completeness and informativeness. N images, D latents, F factors."""

import numpy as np
import torch

from vaelab.metrics.disentanglement.pairs import Array, split


def dci(codes: Array, factors: Array, rng: np.random.Generator) -> dict[str, float]:
    """The scores of Eastwood & Williams (2018), openreview.net/forum?id=By-7dz-AZ, section 2.

    All from how much each latent matters to boosted trees that predict a factor: `disentanglement`
    is one minus the entropy of a latent's part in the factors, averaged over latents by how much
    they matter; `completeness` the same of a factor's part in the latents; `informativeness` the
    accuracy for images that were not fitted, averaged over factors.

    The trees are those of the figures of Locatello et al. (2019), a hundred of depth 3 for each
    value of a factor; other trees give other values, random forests smaller ones. The trees of
    scikit-learn over 255 quantiles are fast, but give equally good latents all to the first, and
    were up to 0.4 away. For dSprites it takes five minutes, divided by the threads.

    Args:
        codes: Posterior means [N, D]; two thirds of them are fitted, the others scored.
        factors: Integers [N, F].
        rng: Draws the split, and settles ties.
    """
    from joblib import Parallel, delayed  # slow to import
    from sklearn.ensemble import GradientBoostingClassifier

    fit, known, score, asked = split(codes, factors, rng)

    def predicted(seed: int, v: Array, w: Array) -> tuple[Array, float]:
        trees = GradientBoostingClassifier(random_state=seed).fit(fit, v)
        parts = np.maximum(trees.feature_importances_, 0)  # rounding takes some below
        return parts, trees.score(score, w)

    seeds = [int(rng.integers(2**31)) for _ in known.T]
    work = Parallel(n_jobs=min(len(seeds), torch.get_num_threads()), prefer="threads")
    found = work(delayed(predicted)(*each) for each in zip(seeds, known.T, asked.T, strict=True))
    importance, accuracy = map(np.stack, zip(*found, strict=True))
    return {
        "disentanglement": concentration(importance.T),
        "completeness": concentration(importance),
        "informativeness": float(accuracy.mean()),
    }


def concentration(importance: Array) -> float:
    """One minus the entropy of each row's parts over its maximum, averaged by the rows' sums."""
    from scipy.stats import entropy  # slow to import

    rows = importance[importance.sum(1) > 0]
    if not rows.size:
        return 0.0
    entropies = entropy(rows, axis=1) / np.log(max(rows.shape[1], 2))
    return float(np.average(1 - entropies, weights=rows.sum(1)))
