"""Metrics by linear classifiers of factors from codes: `sap` and `explicitness`.

Shapes: N images, D latents, F factors.
"""

import numpy as np

from vaelab.metrics.disentanglement.pairs import Array, split_pairs


def sap(codes: Array, factors: Array, rng: np.random.Generator) -> float:
    """Returns the SAP score by linear SVMs, for discrete factors; skips constant ones; may raise.

    Kumar et al. (2018), arXiv:1711.00848, section 3. How much better the best latent alone predicts
    a factor than the second best: the gap in accuracy of linear support vector machines, with the
    settings of disentanglement_lib, averaged over factors. A single latent is compared with a dead
    one. The penalty of the machine makes the score depend on the scale of the codes.

    Args:
        codes: Posterior means [N, D]; two thirds of them are fitted, the others scored.
        factors: Integers [N, F].
        rng: Draws the split.

    Raises:
        UserError: As `split_pairs` does.
    """
    fit, known, score, asked = split_pairs(codes, factors, rng)
    if fit.shape[1] == 1:
        fit, score = (np.pad(part, ((0, 0), (0, 1))) for part in (fit, score))
    from sklearn.svm import LinearSVC  # slow to import

    machine = LinearSVC(C=0.01, class_weight="balanced", dual="auto")
    accuracy = [
        [
            machine.fit(x[:, None], v).score(z[:, None], w)
            for x, z in zip(fit.T, score.T, strict=True)
        ]
        for v, w in zip(known.T, asked.T, strict=True)
    ]  # [F, D]
    second, first = np.sort(accuracy).T[-2:]
    return float(np.mean(first - second))


def explicitness(codes: Array, factors: Array, rng: np.random.Generator) -> float:
    """Returns the mean ROC area of linear classifiers; skips constant factors; may raise.

    Ridgeway & Mozer (2018), arXiv:1802.05312, section 3. The area under the ROC curve of logistic
    regression on standardised codes, one value of a factor against the rest, averaged over values
    and then over factors. As in the paper 0.5 is chance and 1 perfect.

    Args:
        codes: Posterior means [N, D]; two thirds of them are fitted, the others scored.
        factors: Integers [N, F].
        rng: Draws the split.

    Raises:
        UserError: As `split_pairs` does.
    """
    fit, known, score, asked = split_pairs(codes, factors, rng)
    areas = [mean_roc_auc(fit, v, score, w) for v, w in zip(known.T, asked.T, strict=True)]
    return float(np.mean(areas))


def mean_roc_auc(fit: Array, known: Array, score: Array, asked: Array) -> float:
    """Returns the one-versus-rest ROC area of a factor, averaged over values in both parts.

    Fits a logistic regression to codes `fit` [n, D] and their factor `known` [n]; the area is that
    of codes `score` [m, D] and their factor `asked` [m].
    """
    from sklearn.linear_model import LogisticRegression  # slow to import
    from sklearn.metrics import roc_auc_score
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), OneVsRestClassifier(LogisticRegression()))
    probabilities = model.fit(fit, known).predict_proba(score).T
    values = zip(model.classes_, probabilities, strict=True)
    return float(np.mean([roc_auc_score(asked == v, p) for v, p in values if v in asked]))
