"""The DCI scores: disentanglement, completeness and informativeness.

Shapes: N images, D latents, F factors.
"""

import numpy as np
import torch

from vaelab.metrics.disentanglement.pairs import Array, split_pairs


def dci(codes: Array, factors: Array, rng: np.random.Generator) -> dict[str, float]:
    """Returns three DCI scores, by trees fitted in threads; skips constant factors; may raise.

    Eastwood & Williams (2018), openreview.net/forum?id=By-7dz-AZ, section 2. All are from how much
    each latent matters to boosted trees that predict a factor. `disentanglement` is one minus the
    normalised entropy of a latent's importance over factors, averaged over latents by their total
    importance; `completeness` is the same of a factor's importance over latents; `informativeness`
    is the accuracy for images that were not fitted, averaged over factors.

    The trees are those of the figures of Locatello et al. (2019), a hundred of depth 3 for each
    value of a factor; other trees give other values, random forests smaller ones. scikit-learn's
    trees over 255 quantiles are fast, but give all importance of equally good latents to the first,
    and were up to 0.4 away. For dSprites it takes five minutes, divided by the threads.

    Args:
        codes: Posterior means [N, D]; two thirds of them are fitted, the others scored.
        factors: Integers [N, F].
        rng: Draws the split, and settles ties.

    Raises:
        UserError: As `split_pairs` does.
    """
    from joblib import Parallel, delayed  # slow to import
    from sklearn.ensemble import GradientBoostingClassifier

    fit, known, score, asked = split_pairs(codes, factors, rng)

    def fit_trees(seed: int, v: Array, w: Array) -> tuple[Array, float]:
        """Fits trees to a factor v; returns importances [D] and the accuracy for the factor w.

        v is of the images to fit and w of those to score.
        """
        trees = GradientBoostingClassifier(random_state=seed).fit(fit, v)
        parts = np.maximum(trees.feature_importances_, 0)  # rounding makes some negative
        return parts, trees.score(score, w)

    seeds = [int(rng.integers(2**31)) for _ in known.T]
    work = Parallel(n_jobs=min(len(seeds), torch.get_num_threads()), prefer="threads")
    found = work(delayed(fit_trees)(*each) for each in zip(seeds, known.T, asked.T, strict=True))
    importance, accuracy = map(np.stack, zip(*found, strict=True))
    return {
        "disentanglement": concentration(importance.T),
        "completeness": concentration(importance),
        "informativeness": float(accuracy.mean()),
    }


def concentration(importance: Array) -> float:
    """Returns mean of 1 - normalised entropy over rows [R, C], weighted by row sums; 0 if all 0.

    Rows that sum to zero are skipped.
    """
    from scipy.stats import entropy  # slow to import

    rows = importance[importance.sum(1) > 0]
    if not rows.size:
        return 0.0
    entropies = entropy(rows, axis=1) / np.log(max(rows.shape[1], 2))
    return float(np.average(1 - entropies, weights=rows.sum(1)))
