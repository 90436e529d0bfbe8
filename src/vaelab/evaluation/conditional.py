"""The metric of a conditional model: what its labels do to samples, likelihood and codes."""

from typing import Any

import torch
from pydantic import PositiveInt

from vaelab.data import Images
from vaelab.elbo import ELBO
from vaelab.evaluation.subject import Subject, applicable_unless, attempt
from vaelab.metrics.conditional import label_agreement, label_metrics, linear_probe, nll_by_label
from vaelab.metrics.estimates import Estimate, mean_estimate


def conditional_obstacle(model: ELBO, data: Images) -> str | None:
    """Returns why `conditional` is not applicable, or None if y is one label of several classes."""
    if not model.context_dim:
        return "the model sees no labels"
    if list(model.classes) != ["label"] or model.numbers:
        return "the model sees other columns than the label alone"
    if model.num_classes < 2:
        return "all images are of one class"
    return None


@applicable_unless(conditional_obstacle)
def conditional(
    subject: Subject, *, per_class: PositiveInt, images: PositiveInt, num_samples: PositiveInt
) -> dict[str, Any]:
    """Measures labels' effect on samples, NLL and z; trains and caches a classifier if needed.

    That is whether samples show their label, judged by the classifier in the cache folder, the NLL
    under every label, and how well z tells the label. The NLL is not applicable to a deterministic
    encoder. Raises NotApplicable for an unconditional model, other columns in y, or a single class.

    Args:
        subject: A conditional model and its data.
        per_class: Samples of each label for the classifier to judge.
        images: The number of test images, from the first, whose NLL is computed under every label.
        num_samples: K of the log evidence under each label.
    """
    model, data = subject.model, subject.data
    truth = subject.test_labels.argmax(1)
    probed = attempt({"probe,probe_chance": lambda: linear_probe(subject.test_codes, truth)})
    judge = subject.classifier
    batches = subject.test_batches("every image by every label", count=images)

    def by_label() -> dict[str, Estimate]:
        """Returns the estimates by the NLL; raises NotApplicable for a deterministic encoder."""
        nll, labels = nll_by_label(model, batches, num_samples)
        seen = data.splits.train_labels[data.rows["train"]]
        frequencies = torch.bincount(seen, minlength=model.num_classes).to(nll) / len(seen)
        found = label_metrics(nll, labels, frequencies)
        return {name: mean_estimate(values) for name, values in found.items()}

    explained = attempt(
        {"nll_given_label,nll_marginal,label_information,wrong_label_cost,label_accuracy": by_label}
    )
    return {
        "classifier": judge.name,
        "classifier_accuracy": judge.accuracy,
        **label_agreement(model, judge, per_class),
        **explained,
        **probed,
    }
