"""Tests of labels y and the conditions on them, against values computed from row numbers.

Also tests all commands on a user's file with several columns.
"""

import math

import numpy as np
import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning import Trainer
from support.commands import run_command
from torch.testing import assert_close

from vaelab.commands import encode, evaluate, export, generate, train
from vaelab.conditions import Continuous, Embedding, OneHot, Unconditional
from vaelab.data import Images, Sprites
from vaelab.data.columns import Column, Labels
from vaelab.data.splits import Splits
from vaelab.errors import UserError
from vaelab.runs import finished

COUNT = 40
SMALL = ["model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "model.latent_dim=2"]


def splits():
    """40 images of 8 x 8 pixels whose grey level is 6 times the row number, with four columns.

    They are label (3 classes), style (2 classes), place (1 number) and pair (2 numbers).
    """
    rows = torch.arange(COUNT)
    pairs = torch.stack([rows / 10, torch.full((COUNT,), 7.0)], 1)
    columns = {
        "style": Column(rows % 2, rows[:0], 2),
        "place": Column(rows[:, None] / COUNT, torch.empty(0, 1)),
        "pair": Column(pairs, torch.empty(0, 2)),
    }
    images = (rows * 6).byte()[:, None, None, None].expand(-1, 1, 8, 8).contiguous()
    return Splits(images, rows % 3, images[:0], rows[:0], 3, columns=columns)


def build_data(source=splits, **settings):
    """Builds `Images` with batches of 5; 10 images each are for validation and test."""
    settings = {"batch_size": 5, "val_size": 10, "test_size": 10, "pixels": "grey"} | settings
    return Images(source=source, **settings)


def y_and_rows(module, part="train"):
    """Labels y [N, Y] of all images of a part, and their row numbers [N], from grey levels."""
    batches = module.batches(part)
    x, y = zip(*batches, strict=True)
    return torch.cat(y), (torch.cat(x)[:, 0, 0, 0] * 255 / 6).round().long()


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_y_has_one_hot_classes_before_numbers(part):
    module = build_data(columns=["pair", "style", "place", "label"])
    assert module.shapes["classes"] == {"style": 2, "label": 3}
    assert module.shapes["numbers"] == {"pair": 2, "place": 1}
    y, rows = y_and_rows(module, part)
    assert len(set(rows.tolist())) == len(rows) > 5
    assert_close(y[:, :2], torch.eye(2)[rows % 2])
    assert_close(y[:, 2:5], torch.eye(3)[rows % 3])
    assert_close(y[:, 5], rows / 10)
    assert_close(y[:, 6], torch.full_like(y[:, 6], 7))
    assert_close(y[:, 7], rows / COUNT)


def test_y_is_one_hot_label_by_default():
    module = build_data()
    assert (module.shapes["classes"], module.shapes["numbers"]) == ({"label": 3}, {})
    y, rows = y_and_rows(module)
    assert torch.equal(y, torch.eye(3)[rows % 3])


def test_y_with_numbers_has_all_number_columns_by_default():
    shapes = build_data(numbers=True).shapes
    assert (shapes["classes"], shapes["numbers"]) == ({}, {"place": 1, "pair": 2})


def test_y_without_columns_has_width_0():
    y, rows = y_and_rows(build_data(columns=[]))
    assert y.shape == (len(rows), 0)


def test_unknown_column_is_refused_with_a_hint():
    with pytest.raises(UserError, match=r"data\.columns: plaice is no column.*did you mean place"):
        _ = build_data(columns=["plaice"]).shapes


def test_y_of_official_test_set_has_its_own_columns():
    rows = torch.arange(6)
    images = torch.zeros(6, 1, 8, 8).byte()
    columns = {"place": Column(rows[:, None] / 1, rows[:3, None] + 100.0)}
    own = Splits(images, rows, images[:3], rows[:3], 6, columns=columns)
    module = build_data(lambda: own, columns=["place"], batch_size=2, val_size=2, test_size=0)
    assert torch.equal(torch.cat([y for _, y in module.batches("test")]), rows[:3, None] + 100.0)


SPRITES = Sprites(size=16, scales=2, orientations=5, positions=3)


def test_sprites_factors_are_one_hot_or_numbers():
    names = ["shape", "scale", "orientation", "position_x", "position_y"]
    classes = build_data(SPRITES, columns=names).shapes
    assert classes["classes"] == {
        "shape": 3, "scale": 2, "orientation": 5, "position_x": 3, "position_y": 3,
    }  # fmt: skip
    module = build_data(SPRITES, columns=names, numbers=True)
    assert module.shapes["classes"] == {"shape": 3}
    assert module.shapes["numbers"] == {
        "scale": 1, "orientation": 2, "position_x": 1, "position_y": 1,
    }  # fmt: skip
    rows = torch.arange(270)
    factors = SPRITES.factors.values_at(rows)
    y = module.labels("train")[rows]
    assert torch.equal(y[:, :3], torch.eye(3)[factors[:, 0]])
    assert_close(y[:, 3], 0.5 + 0.5 * factors[:, 1])
    angle = math.tau * factors[:, 2] / 4
    assert_close(y[:, 4:6], torch.stack([angle.cos(), angle.sin()], 1))
    assert_close(y[:, 6:], factors[:, 3:] / 2)


def test_labels_store_class_indices_and_one_hot_table():
    orientation = SPRITES.factors.column("orientation")
    labels = Labels.from_columns([orientation], "train", 270, numbers=False)
    (values, table), *others = labels.columns
    assert not others
    assert (values.shape, table.shape) == ((270,), (5, 5))


# Conditions.


def test_unconditional_context_is_empty_and_one_hot_is_y():
    y = torch.rand(2, 4, 5)
    assert Unconditional({"a": 2, "b": 3}, {})(y).shape == (2, 4, 0)
    condition = OneHot({"a": 2, "b": 3}, {})
    assert condition.features == 5
    assert torch.equal(condition(y), y)


def test_embedding_concatenates_vectors_of_each_column():
    condition = Embedding({"a": 2, "b": 3}, {}, features=4)
    a, b = torch.tensor([0, 1, 1]), torch.tensor([2, 0, 1])
    y = torch.cat([torch.eye(2)[a], torch.eye(3)[b]], 1)
    tables = [torch.nn.Embedding.from_pretrained(vectors) for vectors in condition.vectors]
    assert condition.features == 8
    assert_close(condition(y), torch.cat([tables[0](a), tables[1](b)], 1))
    half = condition((y[:1] + y[1:2]) / 2)
    assert_close(half, (condition(y[:1]) + condition(y[1:2])) / 2)


def test_continuous_standardises_numbers_by_training_images():
    module = build_data(columns=["style", "place", "pair"])
    condition = Continuous({"style": 2}, {"place": 1, "pair": 2})
    condition.initialise(module)
    y, _ = y_and_rows(module)
    context = condition(y)
    assert torch.equal(context[:, :2], y[:, :2])
    assert_close(context[:, 2:4].mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    assert_close(context[:, 2:4].std(0, correction=0), torch.ones(2))
    assert torch.equal(context[:, 4], torch.zeros(len(y)))  # the constant number
    others, _ = y_and_rows(module, "val")
    assert condition(others)[:, 2:4].mean(0).abs().min() > 1e-3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OneHot({}, {}), "condition=one_hot needs labels"),
        (lambda: Embedding({}, {}, features=2), "condition=embedding needs labels"),
        (
            lambda: OneHot({"a": 2}, {"b": 1}),
            "condition=one_hot takes classes, and b holds numbers",
        ),
        (lambda: Embedding({}, {"b": 1}, features=2), "embedding takes classes, and b holds"),
        (lambda: Continuous({"a": 2}, {}), "names, and a holds classes"),
        (lambda: Continuous({}, {}), "as data.columns=.age. names, and there are none"),
    ],
)
def test_conditions_refuse_missing_or_unsuitable_columns(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_vamp_prior_refuses_several_label_columns(compose):
    shapes = {"x_shape": (1, 8, 8), "pixels": "binary", "classes": {"a": 2, "b": 3}, "numbers": {}}
    cfg = compose("prior=vamp", "condition=one_hot", *SMALL)
    with pytest.raises(InstantiationException) as error:
        instantiate(cfg.model, _convert_="all", **shapes)
    assert "prior=vamp of a conditional model takes one label" in str(error.value.__cause__)


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        (["model=vae"], "Unconditional"),
        (["model=cvae"], "OneHot"),
        (["model=cvae", "condition=embedding"], "Embedding"),
        (["model=beta_vae", "condition=continuous"], "Continuous"),
    ],
)
def test_condition_choice_sets_class_and_data_numbers(compose, choices, expected):
    cfg = compose(*choices)
    assert cfg.model.condition._target_ == f"vaelab.conditions.{expected}"
    assert cfg.data.numbers == (expected == "Continuous")


# All commands on a user's own file.


@pytest.fixture(scope="module")
def user_data(tmp_path_factory):
    """Folder of mine.npz: 600 images with one white row, whose place gives label, style and angle.

    Label and style are classes; angle is a pair of numbers.
    """
    folder = tmp_path_factory.mktemp("mine")
    rng = np.random.default_rng(0)
    place = rng.integers(0, 8, 600)
    images = np.zeros((600, 8, 8), np.uint8)
    images[np.arange(600), place] = 255
    angle = np.stack([np.cos(place / 8), np.sin(place / 8)], 1)
    parts = {"images": images, "labels": place % 3, "style": place // 4, "angle": angle}
    arrays = {f"train_{name}": values[:500] for name, values in parts.items()}
    arrays |= {f"test_{name}": values[500:] for name, values in parts.items()}
    np.savez(folder / "mine.npz", **arrays)
    return folder


CONDITIONS = {
    "one_hot": ["condition=one_hot", "data.columns=[label,style]"],
    "embedding": [
        "condition=embedding",
        "data.columns=[style,label]",
        "model.condition.features=3",
    ],
    "continuous": ["condition=continuous"],
    "mixed": ["condition=continuous", "data.columns=[label,angle]"],
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", CONDITIONS)
def test_all_commands_support_conditions_on_user_data(user_data, kind, tmp_path, capsys):
    folder = tmp_path / kind
    run_command(
        train, "data=arrays", f"data.source.path={user_data}/mine.npz", "data.val_size=100",
        *CONDITIONS[kind], "likelihood=bernoulli", "network=mlp", *SMALL,
        "trainer.max_epochs=6", "logger=none",
        "prior=conditional_normal", f"hydra.run.dir={folder}", "model.optimizer.lr=0.01",
        "data.batch_size=20",
    )  # fmt: skip
    assert f"{CONDITIONS[kind][0].partition('=')[2]} condition on " in capsys.readouterr().out
    model, module = finished.load_run(folder)
    module.setup("test")
    x, y = next(iter(module.test))
    with torch.no_grad():
        wrong = model.terms(x, y.roll(1, 0)).elbo.mean() - model.terms(x, y).elbo.mean()
    assert wrong < -1  # with the labels of other images
    capsys.readouterr()
    run_command(evaluate, f"run={folder}", "what=[likelihood,reconstruction,conditional]",
            "metrics.likelihood.num_samples=10", f"paths.data={tmp_path}")  # fmt: skip
    assert "the model sees other columns than the label alone" in capsys.readouterr().out
    given = "angle:[1,0]" if "angle" in model.numbers else "style:1"
    run_command(generate, f"run={folder}", "what=samples", f"given={{{given}}}", "count=5")
    (arrays,) = (folder / "generated").glob("samples*.npz")  # their names end with the settings
    with np.load(arrays) as file:
        drawn = torch.from_numpy(file["y"])
    told = [1, 0] if "angle" in model.numbers else [0, 1]
    start = 0 if kind == "embedding" else model.y_dim - 2
    assert torch.equal(drawn[:, start : start + 2], torch.tensor([told]).expand(5, 2).float())
    run_command(generate, f"run={folder}")
    means = []
    for images in (["images=test"], [f"images={user_data}/mine.npz", "array=test_images"]):
        run_command(encode, f"run={folder}", *images, "num_samples=1", "reference=0")
        with np.load(folder / "encoded.npz") as file:
            means.append(file["mean"])
    np.testing.assert_allclose(*means, atol=1e-5)  # images of bits, told the same columns
    run_command(export, f"run={folder}", f"to={tmp_path}/export")


def test_loaded_continuous_condition_keeps_its_standardisation(compose):
    first = build_data(columns=["place"])
    cfg = compose("condition=continuous", "likelihood=gaussian", "data.pixels=grey", *SMALL)

    def fit_one_batch(module, state=None):
        model = instantiate(cfg.model, _convert_="all", **first.shapes)
        if state is not None:
            model.load_state_dict(state)
        options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = Trainer(max_epochs=1, limit_train_batches=1, accelerator="cpu", **options)
        trainer.fit(model, module)
        return model

    model = fit_one_batch(first)
    y, _ = y_and_rows(first)
    assert_close(model.condition.mean, y.mean(0))
    other = build_data(columns=["place"], split_seed=1)
    assert fit_one_batch(other).condition.mean != model.condition.mean
    assert torch.equal(
        fit_one_batch(other, model.state_dict()).condition.mean, model.condition.mean
    )
