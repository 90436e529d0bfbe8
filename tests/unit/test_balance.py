"""The draw of classes equally often, against counts, and in the data module."""

from collections import Counter
from functools import partial

import pytest
import torch
from support.numbered_images import build_data_module, flatten, image_numbers, numbered_images

from vaelab.data.balance import balanced_draw
from vaelab.data.columns import Column
from vaelab.data.splits import Splits
from vaelab.errors import UserError
from vaelab.randomness import seeded_generator


@pytest.mark.parametrize(
    "sizes", [(1, 99), (10, 10, 10), (3, 50, 7, 0, 1), (1,), (1, 1, 1), (500, 2)]
)
def test_classes_and_their_images_are_drawn_equally_often(sizes):
    classes = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    classes = classes[torch.randperm(len(classes))]
    for epoch in range(5):
        drawn = balanced_draw(classes, seeded_generator("balance", epoch))
        assert len(drawn) == len(classes)
        counts = Counter(classes[drawn].tolist())
        assert set(counts) == {c for c, size in enumerate(sizes) if size}
        assert max(counts.values()) - min(counts.values()) <= 1
        for label in counts:
            members = torch.where(classes == label)[0]
            times = torch.bincount(drawn, minlength=len(classes))[members]
            assert times.max() - times.min() <= 1


def test_every_image_is_drawn_in_some_epoch():
    classes = torch.tensor([0] * 40 + [1] * 4)
    drawn = [balanced_draw(classes, seeded_generator("balance", epoch)) for epoch in range(30)]
    assert torch.cat(drawn).unique().tolist() == list(range(44))
    again = balanced_draw(classes, seeded_generator("balance", 3))
    assert torch.equal(again, drawn[3])
    assert not torch.equal(drawn[3], drawn[4])


def uneven_splits(count=100, **changes):
    """Returns numbered images, the first 90 % of class 0, with a column of other classes."""
    rows = torch.arange(count)
    labels = (rows >= count * 9 // 10).long()
    column = Column((rows % 4 == 0).long(), rows[:0], classes=2)
    angle = Column(rows[:, None].float(), rows[:0, None].float())
    images = numbered_images(count)
    settings = {"num_classes": 2, "columns": {"spotted": column, "angle": angle}} | changes
    return Splits(images, labels, images[:0], labels[:0], **settings)


@pytest.fixture
def build(monkeypatch):
    """Returns a function that builds a data module of the same uneven images; 80 are trained on."""
    splits = uneven_splits()
    return partial(build_data_module, lambda: splits, batch_size=10, test_size=10)


def class_share(loader):
    """Returns the share of images whose y is of the last class, over an epoch."""
    return float(torch.cat([y for _, y in loader])[:, -1].mean())


def test_balanced_epoch_has_the_same_length_and_equal_classes(build):
    plain, balanced = build(), build(balance=True)
    assert len(balanced.train) == len(plain.train) == 8
    assert class_share(plain.train) < 0.2
    for epoch in (0, 1):
        balanced.train.set_epoch(epoch)
        assert class_share(balanced.train) == 0.5
    numbers = set(flatten(image_numbers(balanced.train)))
    assert numbers <= set(balanced.rows["train"].tolist())


def test_balance_by_a_column_is_of_its_classes(build):
    data = build(balance="spotted", columns=["label", "spotted"])
    assert class_share(data.train) == 0.5
    y = torch.cat([y for _, y in data.train])
    numbers = torch.tensor(flatten(image_numbers(data.train)))
    assert torch.equal(y[:, 1], (numbers >= 90).float())  # labels are those of the images
    assert torch.equal(y[:, 3], (numbers % 4 == 0).float())


def test_balance_leaves_validation_and_test_alone(build):
    plain, balanced = build(), build(balance=True)
    for part in ("val", "test"):
        assert image_numbers(getattr(balanced, part)) == image_numbers(getattr(plain, part))


def test_balanced_epoch_resumes_with_the_remaining_batches(build):
    whole = build(balance=True).train
    whole.set_epoch(1)
    expected = image_numbers(whole)
    for position in range(len(expected)):
        loader = build(balance=True).train
        loader.load_state_dict({"position": position})
        loader.set_epoch(1)
        assert image_numbers(loader) == expected[position:]


@pytest.mark.parametrize(
    ("changes", "balance", "message"),
    [
        (
            {"num_classes": 0, "columns": {}},
            True,
            "data.balance=true: these images have no labels$",
        ),
        ({"num_classes": 0}, True, "have no labels; data.balance=NAME takes spotted"),
        ({}, "angle", "data.balance=angle: .*no such column of classes; .*label or spotted"),
        ({}, "spoted", "data.balance=spoted: "),
    ],
)
def test_balance_without_such_classes_is_refused(changes, balance, message):
    with pytest.raises(UserError, match=message):
        build_data_module(partial(uneven_splits, **changes), balance=balance)
