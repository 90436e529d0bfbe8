"""What a model is told of an image: from columns of data to the context of its networks."""

import math
import sys

import numpy as np
import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning import Trainer
from torch.testing import assert_close

from vaelab.commands import evaluate, export, generate, train
from vaelab.conditions import Continuous, Embedding, OneHot, Unconditional
from vaelab.data import Images, Sprites
from vaelab.data.columns import Column, Labels
from vaelab.data.splits import Splits
from vaelab.errors import UserError
from vaelab.runs import finished

COUNT = 40
SMALL = ["model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "model.latent_dim=2"]


def splits():
    """Grey images with a label of 3, a style of 2, a place and a pair of numbers."""
    rows = torch.arange(COUNT)
    pairs = torch.stack([rows / 10, torch.full((COUNT,), 7.0)], 1)
    columns = {
        "style": Column(rows % 2, rows[:0], 2),
        "place": Column(rows[:, None] / COUNT, torch.empty(0, 1)),
        "pair": Column(pairs, torch.empty(0, 2)),
    }
    images = (rows * 6).byte()[:, None, None, None].expand(-1, 1, 8, 8).contiguous()
    return Splits(images, rows % 3, images[:0], rows[:0], 3, columns=columns)


def data(source=splits, **settings):
    settings = {"batch_size": 5, "val_size": 10, "test_size": 10, "pixels": "grey"} | settings
    return Images(source=source, **settings)


def y_of(module, part="train"):
    """The y of a part, and the rows of the images it is of, told by their grey."""
    batches = module.batches(part)
    x, y = zip(*batches, strict=True)
    return torch.cat(y), (torch.cat(x)[:, 0, 0, 0] * 255 / 6).round().long()


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_y_is_the_classes_and_then_the_numbers_of_each_image(part):
    module = data(columns=["pair", "style", "place", "label"])
    assert module.shapes["classes"] == {"style": 2, "label": 3}
    assert module.shapes["numbers"] == {"pair": 2, "place": 1}
    y, rows = y_of(module, part)
    assert len(set(rows.tolist())) == len(rows) > 5
    assert_close(y[:, :2], torch.eye(2)[rows % 2])
    assert_close(y[:, 2:5], torch.eye(3)[rows % 3])
    assert_close(y[:, 5], rows / 10)
    assert_close(y[:, 6], torch.full_like(y[:, 6], 7))
    assert_close(y[:, 7], rows / COUNT)


def test_y_is_the_label_by_itself():
    module = data()
    assert (module.shapes["classes"], module.shapes["numbers"]) == ({"label": 3}, {})
    y, rows = y_of(module)
    assert torch.equal(y, torch.eye(3)[rows % 3])


def test_y_is_all_numbers_by_itself_where_they_are_asked_for():
    shapes = data(numbers=True).shapes
    assert (shapes["classes"], shapes["numbers"]) == ({}, {"place": 1, "pair": 2})


def test_y_of_nothing_has_no_width():
    y, rows = y_of(data(columns=[]))
    assert y.shape == (len(rows), 0)


def test_a_column_that_is_not_there():
    with pytest.raises(UserError, match=r"data\.columns: plaice is no column.*did you mean place"):
        _ = data(columns=["plaice"]).shapes


def test_labels_of_an_official_test_part_are_its_own():
    rows = torch.arange(6)
    images = torch.zeros(6, 1, 8, 8).byte()
    columns = {"place": Column(rows[:, None] / 1, rows[:3, None] + 100.0)}
    own = Splits(images, rows, images[:3], rows[:3], 6, columns=columns)
    module = data(lambda: own, columns=["place"], batch_size=2, val_size=2, test_size=0)
    assert torch.equal(torch.cat([y for _, y in module.batches("test")]), rows[:3, None] + 100.0)


SPRITES = Sprites(size=16, scales=2, orientations=5, positions=3)


def test_factors_are_classes_or_numbers():
    names = ["shape", "scale", "orientation", "position_x", "position_y"]
    classes = data(SPRITES, columns=names).shapes
    assert classes["classes"] == {
        "shape": 3, "scale": 2, "orientation": 5, "position_x": 3, "position_y": 3,
    }  # fmt: skip
    module = data(SPRITES, columns=names, numbers=True)
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


def test_labels_take_no_memory_for_each_image():
    orientation = SPRITES.factors.column("orientation")
    labels = Labels.from_columns([orientation], "train", 270, numbers=False)
    (values, table), *others = labels.columns
    assert not others
    assert (values.shape, table.shape) == ((270,), (5, 5))


# The conditions.


def test_unconditional_and_one_hot():
    y = torch.rand(2, 4, 5)
    assert Unconditional({"a": 2, "b": 3}, {})(y).shape == (2, 4, 0)
    condition = OneHot({"a": 2, "b": 3}, {})
    assert condition.features == 5
    assert torch.equal(condition(y), y)


def test_an_embedding_is_a_row_of_a_table_for_each_column():
    condition = Embedding({"a": 2, "b": 3}, {}, features=4)
    a, b = torch.tensor([0, 1, 1]), torch.tensor([2, 0, 1])
    y = torch.cat([torch.eye(2)[a], torch.eye(3)[b]], 1)
    tables = [torch.nn.Embedding.from_pretrained(vectors) for vectors in condition.vectors]
    assert condition.features == 8
    assert_close(condition(y), torch.cat([tables[0](a), tables[1](b)], 1))
    half = condition((y[:1] + y[1:2]) / 2)
    assert_close(half, (condition(y[:1]) + condition(y[1:2])) / 2)


def test_continuous_is_standardised_over_the_training_images_alone():
    module = data(columns=["style", "place", "pair"])
    condition = Continuous({"style": 2}, {"place": 1, "pair": 2})
    condition.initialise(module)
    y, _ = y_of(module)
    context = condition(y)
    assert torch.equal(context[:, :2], y[:, :2])
    assert_close(context[:, 2:4].mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    assert_close(context[:, 2:4].std(0, correction=0), torch.ones(2))
    assert torch.equal(context[:, 4], torch.zeros(len(y)))  # it is the same in every image
    others, _ = y_of(module, "val")
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
        (lambda: Continuous({"a": 2}, {}), "columns of numbers, and a holds classes"),
        (lambda: Continuous({}, {}), "columns of numbers, and the images have none"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_pseudo_inputs_have_one_label(compose):
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
def test_the_command_line_chooses(compose, choices, expected):
    cfg = compose(*choices)
    assert cfg.model.condition._target_ == f"vaelab.conditions.{expected}"
    assert cfg.data.numbers == (expected == "Continuous")


# From a file of one's own to pictures.


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A file with a label, a style and an angle, which is where the image is white."""
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


def command(module, *arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"{module.__name__}.py", *map(str, arguments)])
        patch.delenv("HYDRA_FULL_ERROR", raising=False)
        patch.delenv("VAELAB_SHORT_ERROR", raising=False)
        module.main()


KINDS = {
    "several": ["condition=one_hot", "data.columns=[label,style]"],
    "embedding": [
        "condition=embedding",
        "data.columns=[style,label]",
        "model.condition.features=3",
    ],
    "continuous": ["condition=continuous"],
    "mixed": ["condition=continuous", "data.columns=[label,angle]"],
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_train_evaluate_draw_and_export(mine, kind, tmp_path, capsys):
    folder = tmp_path / kind
    command(
        train, "data=arrays", f"data.source.path={mine}/mine.npz", "data.val_size=100",
        *KINDS[kind], "likelihood=bernoulli", "network=mlp", *SMALL, "trainer.max_epochs=6",
        "logger=none",
        "prior=conditional_normal", f"hydra.run.dir={folder}", "model.optimizer.lr=0.01",
        "data.batch_size=20",
    )  # fmt: skip
    assert f"{KINDS[kind][0].partition('=')[2]} condition on " in capsys.readouterr().out
    model, module = finished.load_run(folder)
    module.setup("test")
    x, y = next(iter(module.test))
    with torch.no_grad():
        wrong = model.terms(x, y.roll(1, 0)).elbo.mean() - model.terms(x, y).elbo.mean()
    assert wrong < -1  # it has learned what y says
    capsys.readouterr()
    command(evaluate, f"run={folder}", "what=[likelihood,reconstruction,conditional]",
            "metrics.likelihood.num_samples=10", f"paths.data={tmp_path}")  # fmt: skip
    assert "the model sees other columns than the label alone" in capsys.readouterr().out
    given = "angle:[1,0]" if "angle" in model.numbers else "style:1"
    command(generate, f"run={folder}", "what=samples", f"given={{{given}}}", "count=5")
    (arrays,) = (folder / "generated").glob("samples*.npz")  # named after what was asked for
    with np.load(arrays) as file:
        drawn = torch.from_numpy(file["y"])
    told = [1, 0] if "angle" in model.numbers else [0, 1]
    start = 0 if kind == "embedding" else model.y_dim - 2
    assert torch.equal(drawn[:, start : start + 2], torch.tensor([told]).expand(5, 2).float())
    command(generate, f"run={folder}")
    command(export, f"run={folder}", f"to={tmp_path}/export")


def test_a_loaded_model_is_not_standardised_anew(compose):
    first = data(columns=["place"])
    cfg = compose("condition=continuous", "likelihood=gaussian", "data.pixels=grey", *SMALL)

    def fitted(module, state=None):
        model = instantiate(cfg.model, _convert_="all", **first.shapes)
        if state is not None:
            model.load_state_dict(state)
        options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = Trainer(max_epochs=1, limit_train_batches=1, accelerator="cpu", **options)
        trainer.fit(model, module)
        return model

    model = fitted(first)
    y, _ = y_of(first)
    assert_close(model.condition.mean, y.mean(0))
    other = data(columns=["place"], split_seed=1)
    assert fitted(other).condition.mean != model.condition.mean
    assert torch.equal(fitted(other, model.state_dict()).condition.mean, model.condition.mean)
