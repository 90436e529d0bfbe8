"""What the labels do in a conditional model."""

from typing import Any

import torch
from pydantic import PositiveInt

from vaelab.data import Images
from vaelab.elbo import ELBO
from vaelab.evaluation import classifier
from vaelab.evaluation.subject import Subject, attempt, needs
from vaelab.metrics.conditional import agreement, by_label, nll_by_label, probe
from vaelab.metrics.estimates import mean


def not_the_label_alone(model: ELBO, data: Images) -> str | None:
    if not model.context_dim:
        return "the model sees no labels"
    if list(model.classes) != ["label"] or model.numbers:
        return "the model sees other columns than the label alone"
    if model.num_classes < 2:
        return "all images are of one class"
    return None


@needs(not_the_label_alone)
def conditional(
    subject: Subject, *, per_class: PositiveInt, images: PositiveInt, num_samples: PositiveInt
) -> dict[str, Any]:
    """Whether samples show the label asked for, and what a label says about an image.

    Args:
        subject: A conditional model, its training and its test images.
        per_class: Samples of each label, for a classifier to look at.
        images: How many test images, the first, to call by every label.
        num_samples: K of the log evidence under each label.
    """
    model, data = subject.model, subject.data
    truth = subject.images[1].argmax(1)
    probed = attempt({"probe,probe_chance": lambda: probe(subject.codes, truth)})
    judge = classifier.of(data, subject.cache, data.device, subject.track)
    batches = subject.test("every image by every label", count=images)
    nll, labels = nll_by_label(model, batches, num_samples)
    seen = data.splits.train_labels[data.rows["train"]]
    frequencies = torch.bincount(seen, minlength=model.num_classes).to(nll) / len(seen)
    return {
        "classifier": judge.name,
        "classifier_accuracy": judge.accuracy,
        **agreement(model, judge, per_class),
        **{name: mean(values) for name, values in by_label(nll, labels, frequencies).items()},
        **probed,
    }
