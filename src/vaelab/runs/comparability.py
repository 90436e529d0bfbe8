"""Which runs have numbers that can be ranked against each other. Free of torch."""

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from omegaconf import OmegaConf

MASSES = ("Bernoulli", "Categorical", "DiscretizedLogistic", "DiscretizedLogisticMixture")
DENSITIES = ("ContinuousBernoulli", "Gaussian", "Laplace")
ELSEWHERE = ("folder", "file", "by_hand")
"""Settings of a source that say where its files are, and not what is in them."""

SCALED = {
    *("elbo", "loss", "distortion", "importance_weighted_elbo"),
    *("nll", "nll_ais", "nll_marginal", "nll_given_label"),
}
"""Metrics, by the last part of their names, that depend on the scale of the pixels."""

Key = tuple[str, ...]


def key(config: Mapping[str, Any]) -> Key:
    """What the numbers of a run are of: its data, its pixels, and a mass or a density of them.

    A density of dequantised pixels is 8 bits a dimension above the mass of the same pixels, and
    both say nothing about other pixels, so that runs of different keys have no common scale.

    Args:
        config: Composed and resolved; what is missing of it counts as the same.
    """
    data = config.get("data") or {}
    source = data.get("source") or {}
    settings = [
        f"{name}={value}"
        for name, value in sorted(source.items())
        if not name.startswith("_") and name not in (*ELSEWHERE, "name", "path")
    ]
    return (called(source), f"{data.get('pixels')} pixels", measure(config), *settings)


def part(cfg: Any) -> dict[str, Any]:
    """The part of a composed configuration that `key` takes, resolved; empty if it has none."""
    source, likelihood = (OmegaConf.select(cfg, n) for n in ("data.source", "model.likelihood"))
    if source is None or likelihood is None:
        return {}
    data = {"source": OmegaConf.to_container(source, resolve=True), "pixels": cfg.data.pixels}
    return {"data": data, "model": {"likelihood": {"_target_": likelihood.get("_target_")}}}


def called(source: Mapping[str, Any]) -> str:
    """The name of a data set."""
    if "path" in source:
        return PurePath(str(source["path"])).name
    name = source.get("name") or str(source.get("_target_", "unknown data")).rpartition(".")[2]
    return str(name)


def measure(config: Mapping[str, Any]) -> str:
    """`mass` or `density`; the name of a likelihood that is not vaelab's."""
    likelihood = (config.get("model") or {}).get("likelihood") or {}
    name = str(likelihood.get("_target_", "unknown likelihood")).rpartition(".")[2]
    return "mass" if name in MASSES else "density" if name in DENSITIES else name


def labels(keys: Sequence[Key]) -> dict[Key, str]:
    """A name for each of some keys: what they do not share, after the name of the data.

    Empty where they are all the same.
    """
    different = list(dict.fromkeys(keys))
    if len(different) < 2:
        return dict.fromkeys(different, "")
    shared = set.intersection(*map(set, different))
    return {
        each: ", ".join(p for p in each if p == each[0] or p not in shared) for each in different
    }
