"""Tests of `vaelab.runs.comparability`: keys and labels of runs on a common scale."""

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
