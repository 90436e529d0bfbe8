"""The classifier that judges samples: trained once for a data set, and kept."""

import threading
import time

import pytest
import torch
from safetensors.torch import save
from torch.testing import assert_close

from vaelab.data import Digits, Images
from vaelab.data.splits import OnDemand, Splits
from vaelab.errors import UserError
from vaelab.evaluation import classifier

BATCH, CHUNK = classifier.BATCH, 7


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(classifier, "STEPS", 25)


class Bars(OnDemand):
    """A bright bar across (label 0) or down (label 1) noise, and which rows were asked for."""

    device = torch.device("cpu")
    shape = (1000, 1, 8, 8)

    def __init__(self):
        self.asked = []
        self.labels = torch.arange(1000) % 2

    def to(self, device):
        return self

    def __getitem__(self, rows):
        self.asked.append(rows)
        images = (rows[:, None, None, None] * torch.arange(1, 65).view(1, 1, 8, 8) * 7919) % 128
        for image, row in zip(images, rows.tolist(), strict=True):
            line = row // 2 % 8
            image[(0, line) if row % 2 == 0 else (0, slice(None), line)] = 255
        return images.byte()


def bars(labels=None, test=None, num_classes=2, **settings):
    images = Bars()
    none = torch.empty(0, 1, 8, 8, dtype=torch.uint8), torch.empty(0, dtype=torch.int64)
    splits = Splits(
        images, images.labels if labels is None else labels, *(test or none), num_classes
    )
    settings = {"batch_size": 10, "val_size": 100, "test_size": 200, "pixels": "grey"} | settings
    return Images(source=lambda: splits, **settings)


def of(data, folder):
    return classifier.load_or_train(data, folder, track=lambda steps, _: steps)


def same(a, b):
    pairs = zip(a.state_dict().items(), b.state_dict().items(), strict=True)
    return all(
        name == other and torch.allclose(u, v, rtol=0, atol=0, equal_nan=True)
        for (name, u), (other, v) in pairs
    )


def test_it_learns_from_the_training_rows_and_is_tested_on_the_others(tmp_path):
    data = bars()
    judge = of(data, tmp_path)
    assert judge.accuracy["value"] > 0.95
    asked = data.splits.train_images.asked
    learned = torch.cat([rows for rows in asked if len(rows) == BATCH])
    assert len(learned) == BATCH * classifier.STEPS
    assert set(learned.tolist()) == set(data.rows["train"].tolist())
    assert torch.equal(asked[-1], data.rows["test"])


def test_its_accuracy_is_that_on_the_official_test_images(tmp_path):
    rows = torch.arange(400)
    across_and_down = (Bars()[rows].float() + Bars()[rows + 1].float()) / 2
    data = bars(test=(across_and_down.byte(), rows % 2))
    judge = of(data, tmp_path)
    seen = judge.logits(classifier.grey(data.splits.test_images)).argmax(1)
    share = (seen == rows % 2).double().mean().item()
    assert 0.4 < share < 0.6
    assert judge.accuracy["value"] == pytest.approx(share)
    assert judge.accuracy["se"] == pytest.approx((share * (1 - share) / 399) ** 0.5)


def test_without_test_images_its_accuracy_is_that_on_validation_images(tmp_path):
    data = bars(test_size=0)
    assert of(data, tmp_path).accuracy["value"] > 0.9
    assert torch.equal(data.splits.train_images.asked[-1], data.rows["val"])


def test_a_second_call_finds_it(tmp_path, monkeypatch):
    first = of(bars(), tmp_path / "new" / "folder")
    monkeypatch.setattr(classifier, "fit", lambda *_: pytest.fail("trained again"))
    second = of(bars(batch_size=20), tmp_path / "new" / "folder")
    assert same(first, second)
    assert not second.training
    assert first.name == second.name
    assert first.accuracy == second.accuracy
    assert first.name.startswith("classifier_")
    assert (tmp_path / "new" / "folder" / f"{first.name}.safetensors").exists()


def test_it_is_a_function_of_the_data_alone_and_leaves_the_random_state(tmp_path, monkeypatch):
    monkeypatch.setattr(classifier, "STEPS", 4)
    made = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        made += [of(bars(), tmp_path / str(seed)), of(bars(), tmp_path / str(seed))]
        assert torch.equal(torch.get_rng_state(), state)
    assert all(same(made[0], other) for other in made[1:])


def test_it_is_finished_and_takes_any_number_of_images(tmp_path, monkeypatch):
    monkeypatch.setattr(classifier, "images_per_chunk", lambda *_: CHUNK)
    with torch.no_grad():  # as an evaluation is
        judge = of(bars(), tmp_path)
    assert not judge.training
    x = torch.rand(CHUNK + 3, 1, 8, 8, requires_grad=True)
    features, logits = judge.features(x), judge.logits(x)
    assert features.shape == (CHUNK + 3, classifier.FEATURES)
    assert not logits.requires_grad
    assert_close(features[-2:], judge.features(x[-2:]))
    assert_close(logits, judge(x).detach())
    assert_close(logits, judge.head(features))


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 9, 31), (3, 32, 32), (1, 64, 20), (1, 8, 200)])
def test_any_size_of_image(shape):
    judge = classifier.Classifier(shape, 5, "any").eval()
    x = torch.rand(4, *shape)
    assert judge.logits(x).shape == (4, 5)
    assert judge.features(x).shape == (4, classifier.FEATURES)


def test_the_name_says_what_it_was_made_of(monkeypatch):
    test = Bars()[torch.arange(70)], torch.arange(70) % 2
    swapped, black = 1 - Bars().labels, torch.zeros(70, 1, 8, 8, dtype=torch.uint8)
    every = [
        bars(),
        bars(labels=swapped),
        bars(split_seed=1),
        bars(test_size=100),
        bars(test_size=100, val_size=200),
        bars(val_size=150),
        bars(num_classes=3),
        bars(test=test),
        bars(test=(test[0], 1 - test[1])),
        bars(test=(black, test[1])),
    ]
    names = [classifier.digest(data) for data in every]
    monkeypatch.setattr(classifier, "RECIPE", 0)
    names.append(classifier.digest(bars()))
    monkeypatch.setattr(Bars, "__getitem__", lambda _, rows: torch.zeros(len(rows)).byte())
    names.append(classifier.digest(bars()))
    assert len(set(names)) == len(names)


def test_a_damaged_file_is_made_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(classifier, "STEPS", 4)
    judge = of(bars(), tmp_path)
    file = tmp_path / f"{judge.name}.safetensors"
    whole = file.read_bytes()
    other = save({"head.1.weight": torch.zeros(3)})
    for damaged in (b"", bytes(100), whole[:-100], other):
        file.write_bytes(damaged)
        assert same(of(bars(), tmp_path), judge)
        assert file.read_bytes() == whole


def test_one_waits_for_the_other(tmp_path, monkeypatch):
    times = []

    def fit(*_):
        times.append(time.monotonic())
        time.sleep(0.5)

    monkeypatch.setattr(classifier, "fit", fit)
    both = [threading.Thread(target=of, args=(bars(), tmp_path)) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert len(times) == 1


def test_no_labels(tmp_path):
    with pytest.raises(UserError, match="needs labels, and these images have none"):
        of(bars(num_classes=0), tmp_path)


def test_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*classifier_.*: "):
        of(bars(), tmp_path / "file")


@pytest.mark.slow
def test_real_digits(tmp_path):
    source = Digits(str(tmp_path))
    data = Images(source=source, batch_size=100, val_size=500, test_size=500, pixels="binary")
    judge = of(data, tmp_path)
    images, labels, rows = data.stored("test")
    right = judge.logits(images[rows] / 255).argmax(1) == labels[rows]
    assert judge.accuracy["value"] == pytest.approx(right.double().mean().item())
    assert judge.accuracy["value"] > 0.85  # after 25 steps
