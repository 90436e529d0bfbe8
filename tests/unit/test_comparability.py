"""Tests of `vaelab.runs.comparability`: keys and labels of runs on a common scale."""

from omegaconf import OmegaConf
from support.sweep_folders import MNIST, run_config

from vaelab.runs import comparability


def test_scale_key_and_labels_ignore_data_folders():
    sprites = {"_target_": "vaelab.data.Sprites", "size": 32}
    configs = [
        run_config(sprites, "binary", "Bernoulli"),
        run_config(sprites | {"size": 64}, "binary", "Bernoulli"),
        run_config(
            {"_target_": "vaelab.data.Arrays", "path": "/x/mine.npz"}, "binary", "Bernoulli"
        ),
        run_config({"_target_": "vaelab.data.Arrays", "path": "/y/mine.npz"}, "binary", "Mine"),
        {},
    ]
    keys = [comparability.scale_key(config) for config in configs]
    assert list(comparability.key_labels(keys).values()) == [
        "Sprites, binary pixels, mass, size=32",
        "Sprites, binary pixels, mass, size=64",
        "mine.npz, binary pixels, mass",
        "mine.npz, binary pixels, Mine",
        "unknown data, None pixels, unknown likelihood",
    ]
    assert comparability.key_labels(keys[:1] * 3) == {keys[0]: ""}
    assert comparability.scale_key(
        run_config(MNIST, "grey", "Gaussian")
    ) == comparability.scale_key(run_config(MNIST | {"folder": "/elsewhere"}, "grey", "Gaussian"))


def test_scale_key_is_of_what_a_conditional_model_is_told():
    """As log p(x | y) is above log p(x); how the label is given does not matter."""

    def key(condition, **data):
        config = run_config(MNIST, "binary", "Bernoulli")
        config["model"]["condition"] = {"_target_": f"vaelab.conditions.{condition}"}
        config["data"] |= data
        return comparability.scale_key(config)

    keys = [
        key("Unconditional", columns=["hue"]),
        key("OneHot"),
        key("OneHot", columns="label"),
        key("Embedding", columns=["size", "hue"]),
        key("Continuous", numbers=True),
    ]
    assert keys[0] == comparability.scale_key(run_config(MNIST, "binary", "Bernoulli"))
    assert keys[1] == keys[2]
    assert list(comparability.key_labels(keys).values()) == [
        "MNIST",
        "MNIST, given label",
        "MNIST, given hue, given size",
        "MNIST, given numbers",
    ]


def test_compared_config_has_all_that_the_key_reads(compose):
    """So a sweep's screen and its report put runs into the same groups."""
    for given in (["model=vae"], ["model=cvae"], ["model=cvae", "data.columns=[label]"]):
        cfg = compose(*given)
        whole = OmegaConf.to_container(cfg, resolve=True)
        found = comparability.scale_key(comparability.compared_config(cfg))
        assert found == comparability.scale_key(whole)
        assert ("given label" in found) == ("model=cvae" in given)
