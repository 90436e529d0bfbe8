"""Whether a conditional model does what its labels say.

N images, Y labels. Units: nats per image.
"""

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from vaelab.autoencoder import AutoEncoder
from vaelab.chunking import portion
from vaelab.errors import NotApplicable
from vaelab.metrics.estimates import Estimate, mean, means
from vaelab.metrics.evidence import evidence

FOLDS = 5
"""Of the images, each called by a classifier that was fitted to the others."""


class Judge(Protocol):
    """A classifier of images."""

    def logits(self, x: Tensor) -> Tensor:
        """Logits [B, Y] of images [B, C, H, W]."""
        ...


def agreement(model: AutoEncoder, judge: Judge, per_class: int) -> dict[str, Any]:
    """The share of generated images in which a classifier sees the label that was asked for.

    The images are means p(x | z, y) of one z each; `agreement_per_class` has the share of
    each label, `value` [Y] and `se` [Y].

    Args:
        model: In evaluation mode, on the device of the classifier.
        judge: Of the model's data.
        per_class: Images of each label.
    """
    wanted = torch.arange(model.num_classes, device=model.device).repeat(per_class)
    one_hot = torch.eye(model.num_classes, device=model.device)
    some_at_a_time = wanted.split(portion(model.x_shape, model.device))
    seen = [judge.logits(model.sample(one_hot[some])).argmax(1) for some in some_at_a_time]
    right = torch.cat(seen) == wanted
    return {
        "agreement": mean(right),
        "agreement_per_class": means(right.view(per_class, model.num_classes)),
    }


@torch.no_grad()
def nll_by_label(
    model: AutoEncoder, batches: Iterable[tuple[Tensor, Tensor]], num_samples: int
) -> tuple[Tensor, Tensor]:
    """-log p(x | y) of every image x and every label y, [N, Y], and the images' own labels [N].

    From K samples of q(z | x, y) each, given the same y, see `evidence`: an upper bound, which is
    looser for wrong labels.
    """
    tables, labels = [], []
    for x, y in batches:
        every = torch.eye(model.num_classes, device=x.device)
        columns = [
            evidence(model, x, label.expand(len(x), -1), num_samples)["nll"] for label in every
        ]
        tables.append(torch.stack(columns, 1))
        labels.append(y.argmax(1))
    return torch.cat(tables), torch.cat(labels)


def by_label(nll: Tensor, labels: Tensor, frequencies: Tensor) -> dict[str, Tensor]:
    """What a label says about each image, each [N].

    `nll_given_label` is -log p(x | y) and `nll_marginal` -log p(x), for p(x) = sum_y p(y) p(x | y).
    `label_information` is their difference, log p(y | x) / p(y): at most -log p(y), so on
    average not above the entropy of the labels where these have the frequencies p(y).
    `wrong_label_cost` is the mean of -log p(x | y') over the wrong labels y', above that of the
    right one, and `label_accuracy` whether the most likely y given x is the right one.

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


def probe(codes: Tensor, labels: Tensor) -> dict[str, Estimate]:
    """How often a linear classifier finds the label in z, for images it was not fitted to.

    A logistic regression on standardised posterior means, over five folds. `probe_chance` is what
    naming the most frequent label every time gets.

    Args:
        codes: Posterior means [N, D].
        labels: [N].

    Raises:
        NotApplicable: If nearly all images are of one class.
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
        "probe": mean(found == labels.cpu()),
        "probe_chance": mean(labels == labels.mode().values),
    }
