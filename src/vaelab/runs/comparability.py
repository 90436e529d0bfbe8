"""Which runs have numbers on a common scale, so that they can be ranked.

Does not import torch.
"""

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from omegaconf import OmegaConf

MASSES = (
    *("Autoregressive", "Bernoulli", "Categorical"),
    *("DiscretizedLogistic", "DiscretizedLogisticMixture"),
)
DENSITIES = ("ContinuousBernoulli", "Gaussian", "Laplace")
ELSEWHERE = ("folder", "file", "by_hand")
"""Settings of a source that say where its files are, not what they contain."""

SCALED = {
    *("elbo", "loss", "distortion", "importance_weighted_elbo"),
    *("nll", "nll_ais", "nll_marginal", "nll_given_label", "pca_nll"),
    "neighbours_nll",
}
"""Metrics, by the last part of their names, that depend on the scale of the pixels."""

SPLIT = ("split_seed", "standardize", "test_size", "val_size")
"""Settings of the data that decide what is validated and tested on, and in which units."""
Key = tuple[str, ...]


def scale_key(config: Mapping[str, Any]) -> Key:
    """Returns the data set, pixels, mass or density, and other settings that fix a run's scale.

    These are of the source, and what a conditional model is told. Numbers of runs with different
    keys have no common scale: a density of dequantised pixels is 8 bits a dimension above the mass
    of the same pixels, and log p(x | y) is above log p(x) by what y tells.

    Args:
        config: The configuration, resolved; missing parts count as equal.
    """
    data = config.get("data") or {}
    source = data.get("source") or {}
    settings = [
        f"{name}={value}"
        for name, value in sorted(source.items())
        if not name.startswith("_")
        and name not in (*ELSEWHERE, "name", "path")
        and value is not None  # as in the configuration of a version that had no such setting
    ]
    settings += [f"{name}={data[name]}" for name in SPLIT if name in data]
    settings += [f"given {told}" for told in told_columns(config)]
    return (data_name(source), f"{data.get('pixels')} pixels", mass_or_density(config), *settings)


def compared_config(cfg: Any) -> dict[str, Any]:
    """Returns what `scale_key` reads, resolved; empty without data.source or model.likelihood."""
    source, likelihood = (OmegaConf.select(cfg, n) for n in ("data.source", "model.likelihood"))
    if source is None or likelihood is None:
        return {}
    data = {"source": OmegaConf.to_container(source, resolve=True), "pixels": cfg.data.pixels}
    data |= {name: cfg.data[name] for name in (*SPLIT, "numbers", "columns") if name in cfg.data}
    condition = OmegaConf.select(cfg, "model.condition._target_")
    parts = {"likelihood": likelihood.get("_target_"), "condition": condition}
    return {"data": data, "model": {name: {"_target_": part} for name, part in parts.items()}}


def told_columns(config: Mapping[str, Any]) -> list[str]:
    """Returns what a conditional model is told: its columns, `label` or `numbers`; else nothing."""
    condition = (config.get("model") or {}).get("condition") or {}
    data = config.get("data") or {}
    if str(condition.get("_target_") or "Unconditional").endswith("Unconditional"):
        return []
    columns = data.get("columns") or ["numbers" if data.get("numbers") else "label"]
    return sorted([columns] if isinstance(columns, str) else map(str, columns))


def data_name(source: Mapping[str, Any]) -> str:
    """Returns the name of a data set: its path's last part, its `name`, or its class."""
    if "path" in source:
        return PurePath(str(source["path"])).name
    name = source.get("name") or str(source.get("_target_", "unknown data")).rpartition(".")[2]
    return str(name)


def mass_or_density(config: Mapping[str, Any]) -> str:
    """Returns `mass` or `density` by the likelihood's class name; that name if it is neither."""
    likelihood = (config.get("model") or {}).get("likelihood") or {}
    name = str(likelihood.get("_target_", "unknown likelihood")).rpartition(".")[2]
    return "mass" if name in MASSES else "density" if name in DENSITIES else name


def key_labels(keys: Sequence[Key]) -> dict[Key, str]:
    """Returns labels of distinct keys: data set and parts not shared by all; empty for one."""
    different = list(dict.fromkeys(keys))
    if len(different) < 2:
        return dict.fromkeys(different, "")
    shared = set.intersection(*map(set, different))
    return {
        each: ", ".join(p for p in each if p == each[0] or p not in shared) for each in different
    }
