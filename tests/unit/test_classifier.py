"""The classifier that judges samples: training, accuracy and its cached file, on bar images."""

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
def few_training_steps(monkeypatch):
    """Limits the training of classifiers to 25 steps."""
    monkeypatch.setattr(classifier, "STEPS", 25)


class BarImages(OnDemand):
    """1000 images on demand: a bright bar, horizontal (label 0) or vertical (label 1), on noise.

    Attributes:
        asked: The indices of each request.
    """

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


def build_bar_data(labels=None, test=None, num_classes=2, **settings):
    """Returns a data module of `BarImages`; `test` is a test part (images, labels) of its own."""
    images = BarImages()
    none = torch.empty(0, 1, 8, 8, dtype=torch.uint8), torch.empty(0, dtype=torch.int64)
    splits = Splits(
        images, images.labels if labels is None else labels, *(test or none), num_classes
    )
    settings = {"batch_size": 10, "val_size": 100, "test_size": 200, "pixels": "grey"} | settings
    return Images(source=lambda: splits, **settings)


def load_or_train(data, folder):
    """Loads or trains the classifier of a data set without a progress bar."""
    return classifier.load_or_train(data, folder, track=lambda steps, _: steps)


def has_same_state(a, b):
    """Returns whether two modules have equal parameters and buffers; NaN equals NaN."""
    pairs = zip(a.state_dict().items(), b.state_dict().items(), strict=True)
    return all(
        name == other and torch.allclose(u, v, rtol=0, atol=0, equal_nan=True)
        for (name, u), (other, v) in pairs
    )


def test_load_or_train_fits_training_rows_and_measures_test_rows(tmp_path):
    data = build_bar_data()
    judge = load_or_train(data, tmp_path)
    assert judge.accuracy["value"] > 0.95
    asked = data.splits.train_images.asked
    learned = torch.cat([rows for rows in asked if len(rows) == BATCH])
    assert len(learned) == BATCH * classifier.STEPS
    assert set(learned.tolist()) == set(data.rows["train"].tolist())
    assert torch.equal(asked[-1], data.rows["test"])


@pytest.mark.parametrize(
    ("count", "steps"), [(1, 1), (3, 3), (160, 125), (1279, 1000), (4000, 1000), (60_000, 1000)]
)
def test_few_images_have_few_training_steps(count, steps, monkeypatch):
    monkeypatch.setattr(classifier, "STEPS", 1000)
    assert classifier.num_steps(count) == steps
    if count < 4:
        data, taken = build_bar_data(), []
        images, labels, rows = data.stored("train")
        model = classifier.untrained_classifier(data, "few")
        classifier.fit(
            model, images, labels, rows[:count], lambda turns, _: taken.extend(turns) or turns
        )
        assert len(taken) == steps
        assert all(value.isfinite().all() for value in model.state_dict().values())


def test_classifier_file_of_few_images_has_a_name_of_its_own(monkeypatch):
    """So that one of a longer training is not loaded; those of more images keep their names."""
    monkeypatch.setattr(classifier, "STEPS", 1000)
    data = build_bar_data()
    assert classifier.digest(data) != "7d321236af6f"
    monkeypatch.setattr(classifier, "EPOCHS", 1000)
    assert classifier.digest(data) == "7d321236af6f"  # as before the steps depended on the images


def test_accuracy_is_measured_on_the_source_test_part(tmp_path):
    rows = torch.arange(400)
    across_and_down = (BarImages()[rows].float() + BarImages()[rows + 1].float()) / 2
    data = build_bar_data(test=(across_and_down.byte(), rows % 2))
    judge = load_or_train(data, tmp_path)
    seen = judge.logits(classifier.grey(data.splits.test_images)).argmax(1)
    share = (seen == rows % 2).double().mean().item()
    assert 0.4 < share < 0.6
    assert judge.accuracy["value"] == pytest.approx(share)
    assert judge.accuracy["se"] == pytest.approx((share * (1 - share) / 399) ** 0.5)


def test_accuracy_is_measured_on_validation_images_without_test_images(tmp_path):
    data = build_bar_data(test_size=0)
    assert load_or_train(data, tmp_path).accuracy["value"] > 0.9
    assert torch.equal(data.splits.train_images.asked[-1], data.rows["val"])


def test_load_or_train_loads_existing_classifier(tmp_path, monkeypatch):
    first = load_or_train(build_bar_data(), tmp_path / "new" / "folder")
    monkeypatch.setattr(classifier, "fit", lambda *_: pytest.fail("trained again"))
    second = load_or_train(build_bar_data(batch_size=20), tmp_path / "new" / "folder")
    assert has_same_state(first, second)
    assert not second.training
    assert first.name == second.name
    assert first.accuracy == second.accuracy
    assert first.name.startswith("classifier_")
    assert (tmp_path / "new" / "folder" / f"{first.name}.safetensors").exists()


def test_load_or_train_ignores_and_restores_global_random_state(tmp_path, monkeypatch):
    monkeypatch.setattr(classifier, "STEPS", 4)
    made = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        made += [
            load_or_train(build_bar_data(), tmp_path / str(seed)),
            load_or_train(build_bar_data(), tmp_path / str(seed)),
        ]
        assert torch.equal(torch.get_rng_state(), state)
    assert all(has_same_state(made[0], other) for other in made[1:])


def test_features_and_logits_are_computed_in_chunks_without_gradients(tmp_path, monkeypatch):
    monkeypatch.setattr(classifier, "images_per_chunk", lambda *_: CHUNK)
    with torch.no_grad():  # as in an evaluation
        judge = load_or_train(build_bar_data(), tmp_path)
    assert not judge.training
    x = torch.rand(CHUNK + 3, 1, 8, 8, requires_grad=True)
    features, logits = judge.features(x), judge.logits(x)
    assert features.shape == (CHUNK + 3, classifier.FEATURES)
    assert not logits.requires_grad
    assert_close(features[-2:], judge.features(x[-2:]))
    assert_close(logits, judge(x).detach())
    assert_close(logits, judge.head(features))


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 9, 31), (3, 32, 32), (1, 64, 20), (1, 8, 200)])
def test_classifier_accepts_any_image_size(shape):
    judge = classifier.Classifier(shape, 5, "any").eval()
    x = torch.rand(4, *shape)
    assert judge.logits(x).shape == (4, 5)
    assert judge.features(x).shape == (4, classifier.FEATURES)


def test_digest_changes_with_labels_splits_images_and_recipe(monkeypatch):
    test = BarImages()[torch.arange(70)], torch.arange(70) % 2
    swapped, black = 1 - BarImages().labels, torch.zeros(70, 1, 8, 8, dtype=torch.uint8)
    every = [
        build_bar_data(),
        build_bar_data(labels=swapped),
        build_bar_data(split_seed=1),
        build_bar_data(test_size=100),
        build_bar_data(test_size=100, val_size=200),
        build_bar_data(val_size=150),
        build_bar_data(num_classes=3),
        build_bar_data(test=test),
        build_bar_data(test=(test[0], 1 - test[1])),
        build_bar_data(test=(black, test[1])),
    ]
    names = [classifier.digest(data) for data in every]
    monkeypatch.setattr(classifier, "RECIPE", 0)
    names.append(classifier.digest(build_bar_data()))
    monkeypatch.setattr(BarImages, "__getitem__", lambda _, rows: torch.zeros(len(rows)).byte())
    names.append(classifier.digest(build_bar_data()))
    assert len(set(names)) == len(names)


def test_load_or_train_replaces_damaged_file(tmp_path, monkeypatch):
    monkeypatch.setattr(classifier, "STEPS", 4)
    judge = load_or_train(build_bar_data(), tmp_path)
    file = tmp_path / f"{judge.name}.safetensors"
    whole = file.read_bytes()
    other = save({"head.1.weight": torch.zeros(3)})
    for damaged in (b"", bytes(100), whole[:-100], other):
        file.write_bytes(damaged)
        assert has_same_state(load_or_train(build_bar_data(), tmp_path), judge)
        assert file.read_bytes() == whole


def test_load_or_train_trains_once_in_concurrent_threads(tmp_path, monkeypatch):
    times = []

    def fit(*_):
        times.append(time.monotonic())
        time.sleep(0.5)

    monkeypatch.setattr(classifier, "fit", fit)
    both = [
        threading.Thread(target=load_or_train, args=(build_bar_data(), tmp_path)) for _ in range(2)
    ]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert len(times) == 1


def test_load_or_train_raises_without_labels(tmp_path):
    with pytest.raises(UserError, match="needs labels, and these images have none"):
        load_or_train(build_bar_data(num_classes=0), tmp_path)


def test_load_or_train_raises_if_folder_cannot_be_created(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*classifier_.*: "):
        load_or_train(build_bar_data(), tmp_path / "file")


@pytest.mark.slow
def test_stored_accuracy_equals_accuracy_on_mnist_digits(tmp_path):
    source = Digits(str(tmp_path))
    data = Images(source=source, batch_size=100, val_size=500, test_size=500, pixels="binary")
    judge = load_or_train(data, tmp_path)
    images, labels, rows = data.stored("test")
    right = judge.logits(images[rows] / 255).argmax(1) == labels[rows]
    assert judge.accuracy["value"] == pytest.approx(right.double().mean().item())
    assert judge.accuracy["value"] > 0.85  # after 25 steps
