"""Metrics of conditional models: how images and latents depend on the label.

Shapes: N images, Y labels. Units: nats per image.
"""

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from vaelab.autoencoder import AutoEncoder
from vaelab.errors import NotApplicable
from vaelab.metrics.chunking import images_per_chunk
from vaelab.metrics.estimates import Estimate, column_mean_estimates, mean_estimate
from vaelab.metrics.evidence import evidence_estimates

FOLDS = 5
"""Folds of cross-validation: each is predicted by a classifier fitted to the others."""


class ImageClassifier(Protocol):
    """A classifier of images."""

    def logits(self, x: Tensor) -> Tensor:
        """Logits [B, Y] of images [B, C, H, W]."""
        ...


def label_agreement(model: AutoEncoder, judge: ImageClassifier, per_class: int) -> dict[str, Any]:
    """Generates images; returns the shares, total and per class, judged to have the given label.

    `agreement` is over all images and `agreement_per_class` for each label, `value` [Y] and `se`
    [Y]. The images are means p(x | z, y) of one z each, drawn from the prior by the global random
    state.

    Args:
        model: In evaluation mode, on the device of the classifier.
        judge: A classifier of the model's data.
        per_class: Images of each label.
    """
    wanted = torch.arange(model.num_classes, device=model.device).repeat(per_class)
    one_hot = torch.eye(model.num_classes, device=model.device)
    some_at_a_time = wanted.split(images_per_chunk(model.x_shape, model.device))
    seen = [judge.logits(model.sample_means(one_hot[some])).argmax(1) for some in some_at_a_time]
    right = torch.cat(seen) == wanted
    return {
        "agreement": mean_estimate(right),
        "agreement_per_class": column_mean_estimates(right.view(per_class, model.num_classes)),
    }


@torch.no_grad()
def nll_by_label(
    model: AutoEncoder, batches: Iterable[tuple[Tensor, Tensor]], num_samples: int
) -> tuple[Tensor, Tensor]:
    """Returns estimated upper bounds of -log p(x | y) [N, Y] for every y, and true labels [N].

    From K samples of q(z | x, y) with the same y, see `evidence_estimates`. They are looser for
    wrong labels.

    Raises:
        NotApplicable: If q is a `Point`, which has no density.
    """
    tables, labels = [], []
    for x, y in batches:
        one_hot = torch.eye(model.num_classes, device=x.device)
        columns = [
            evidence_estimates(model, x, label.expand(len(x), -1), num_samples)["nll"]
            for label in one_hot
        ]
        tables.append(torch.stack(columns, 1))
        labels.append(y.argmax(1))
    return torch.cat(tables), torch.cat(labels)


def label_metrics(nll: Tensor, labels: Tensor, frequencies: Tensor) -> dict[str, Tensor]:
    """Returns five metrics of each image, [N] each, of how much its label says about it.

    `nll_given_label` is -log p(x | y) and `nll_marginal` -log p(x), for p(x) = sum_y p(y) p(x | y).
    `label_information` is their difference, log p(y | x) / p(y): at most -log p(y), so on average
    not above the entropy of the labels where these have the frequencies p(y). `wrong_label_cost` is
    the mean of -log p(x | y') over the wrong labels y', less -log p(x | y) of the right one.
    `label_accuracy` is True where the most likely y given x is the right one.

    Args:
        nll: -log p(x | y), [N, Y].
        labels: [N].
        frequencies: p(y), [Y].
    """
    log_joint = frequencies.log() - nll
    marginal = -log_joint.logsumexp(1)
    own = nll.gather(1, labels[:, None]).squeeze(1)
    wrong = (nll.sum(1) - own) / (nll.shape[1] - 1)
    return {
        "nll_given_label": own,
        "nll_marginal": marginal,
        "label_information": marginal - own,
        "wrong_label_cost": wrong - own,
        "label_accuracy": log_joint.argmax(1) == labels,
    }


def linear_probe(codes: Tensor, labels: Tensor) -> dict[str, Estimate]:
    """Returns cross-validated accuracy of a linear classifier of codes, and of chance; may raise.

    A logistic regression on standardised posterior means, over five folds. `probe` is the share of
    images whose label it predicts, each by a classifier fitted to other folds. `probe_chance` is
    the share of the most frequent label.

    Args:
        codes: Posterior means [N, D].
        labels: [N].

    Raises:
        NotApplicable: If there are fewer than five images, or nearly all are of one class.
    """
    z, truth = codes.cpu().double().numpy(), labels.cpu().numpy()
    from sklearn.linear_model import LogisticRegression  # slow to import
    from sklearn.model_selection import KFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folds = KFold(FOLDS, shuffle=True, random_state=0)
    if len(z) < FOLDS or any(len(np.unique(truth[rest])) < 2 for rest, _ in folds.split(z)):
        others = len(labels) - int((labels == labels.mode().values).sum())
        raise NotApplicable(
            f"of {len(labels)} test images {others} are of another class than the most frequent, "
            f"too few to leave some in each of {FOLDS} folds"
        )
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    found = torch.from_numpy(cross_val_predict(model, z, truth, cv=folds))
    return {
        "probe": mean_estimate(found == labels.cpu()),
        "probe_chance": mean_estimate(labels == labels.mode().values),
    }
