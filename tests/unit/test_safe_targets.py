"""Tests of `vaelab.runs.safe_targets`: the lists, and that no text of a folder calls a resolver."""

import random
import re
from contextlib import suppress

import pytest
from omegaconf import OmegaConf

from vaelab.commands.config_folders import CONF
from vaelab.runs.safe_targets import (
    DATA_PARTS,
    OTHERS,
    is_safe_target,
    unsafe_settings,
    without_resolvers,
)
from vaelab.runs.screen import printable
from vaelab.runs.targets import import_target

PARTS = (
    *("condition", "data", "likelihood", "model", "network", "optimizer", "posterior", "prior"),
    "scheduler",
)
"""Groups of conf whose choices build the model and the data of a run."""
PIECES = (
    *("${", "}", "\\", "counted:", "counted:1", "${counted:a}", "a", "${b}", "$", "{", ".", "[0]"),
    *("'", '"', ":", "${counted:'${b}'}", "\\${", " ", "[", "]", "${.", "counted", ",", "${b.c}"),
)


@pytest.fixture
def calls():
    """The calls of the resolver `counted`, as they come."""
    found = []
    OmegaConf.register_new_resolver("counted", lambda *given: found.append(given) or "x")
    yield found
    OmegaConf.clear_resolver("counted")


def resolve(node):
    """Resolves a node, and again what came of it, as Hydra does; ignores errors."""
    for _ in range(2):
        try:
            node = OmegaConf.to_container(OmegaConf.create(node), resolve=True)
        except Exception:  # texts that are no interpolation, which is as good
            return


def random_nodes(count):
    """Yields nodes with texts made of pieces of interpolations."""
    drawn = random.Random(0)
    for _ in range(count):
        text = "".join(drawn.choices(PIECES, k=drawn.randint(1, 7)))
        yield {"a": text, "b": "value", "list": [text, {"c": text}]}


def test_no_text_without_resolvers_calls_one(calls):
    for node in random_nodes(5000):
        safe = without_resolvers(node)
        resolved = OmegaConf.create(safe)
        try:
            plain = OmegaConf.to_container(resolved, resolve=True)
        except Exception:  # no interpolation, or one of a setting that is not there
            plain = None
        if plain is not None and not [*unsafe_settings("model", plain)]:
            resolve(plain)  # what is not refused is interpolated again by Hydra
        assert not calls, node
    for node in random_nodes(500):  # the same texts do call it otherwise
        resolve(node)
    assert len(calls) > 50


@pytest.mark.parametrize(
    "text",
    ["${seed}", "${paths.data}/x", "${.a}-${..b.c}", "${a[0].b}", "plain", 3, None, "$5 {a}"],
)
def test_without_resolvers_keeps_references_and_other_values(text):
    assert without_resolvers({"a": [text]}) == {"a": [text]}


@pytest.mark.parametrize(
    "text", ["${oc.env:HOME}", "a${a:}b", "${${a}}", r"\${oc.env:HOME}", r"\\${oc.env:HOME}"]
)
def test_without_resolvers_makes_other_interpolations_stand_for_themselves(text):
    found = OmegaConf.to_container(OmegaConf.create(without_resolvers({"a": text})), resolve=True)
    assert found == {"a": text}


@pytest.mark.parametrize("name", sorted(OTHERS | DATA_PARTS))
def test_every_listed_name_is_a_class(name):
    with suppress(ImportError):  # a class of another version than the one that is installed
        assert isinstance(import_target(name), type)


@pytest.mark.parametrize("group", PARTS)
def test_every_part_that_is_chosen_by_name_is_safe(group):
    found = {
        target
        for file in (CONF / group).glob("*.yaml")
        for target in re.findall(r"_target_: *([\w.]+)", file.read_text())
    }
    assert found
    path = "data" if group == "data" else "model"
    assert [target for target in sorted(found) if not is_safe_target(path, target)] == []


@pytest.mark.parametrize(
    ("path", "target", "safe"),
    [
        ("model", "vaelab.models.BetaVAE", True),
        ("model.encoder.hidden.0", "vaelab.networks.mlp.MLPEncoder", True),
        ("model.condition", "vaelab.conditions.OneHot", True),
        ("model.optimizer", "torch.optim.SGD", True),
        ("data", "vaelab.data.Images", True),
        ("data.source", "vaelab.data.Arrays", True),
        ("model", "vaelab.data.Images", False),
        ("data.source", "vaelab.models.BetaVAE", False),
        ("data.source", "vaelab.data.store.write_safetensors", False),
        ("model", "vaelab.__main__.main", False),
        ("model", "vaelab.models.vae.os.system", False),
        ("model", "vaelab.networks.layers.torch.load", False),
        ("model", "vaelab.networks.mlp.nn.Identity", False),
        ("model", "vaelab.models", False),
        ("model", "vaelab.models.nothing", False),
        ("model.optimizer", "torch.optim.adam.torch.load", False),
        ("model", "torch.load", False),
        ("model", "torch.hub.load", False),
        ("model", "", False),
        ("model", None, False),
        ("model", ["os", "system"], False),
    ],
)
def test_is_safe_target(path, target, safe):
    assert is_safe_target(path, target) is safe


def test_printable_escapes_control_characters_but_line_breaks():
    assert printable("a\x1b[2Jb\n\rc\u202e ä 数") == "a\\x1b[2Jb\n\\rc\\u202e ä 数"
