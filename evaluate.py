"""Measure a finished run on its test images: python evaluate.py run=outputs/..."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from pydantic import NonNegativeInt, PositiveInt

from vaelab import cli


def settings(
    *,
    run: str,
    num_samples: PositiveInt,
    batch_size: PositiveInt,
    seed: NonNegativeInt,
    rerun: bool,
) -> None:
    """The settings, for the check."""


@cli.task("evaluate")
def main(cfg: DictConfig) -> dict[str, Any]:
    """Writes evaluation.json in the run folder and shows it as a table."""
    import torch
    from rich.console import Console
    from rich.progress import track

    from vaelab import evaluation, records, runs, schema

    schema.check(cfg, settings)
    file = Path(cfg.run) / "evaluation.json"
    results = records.read_json(file)
    asked = {name: cfg[name] for name in ("num_samples", "seed")}
    if cfg.rerun or any(results.get(name) != value for name, value in asked.items()):
        torch.distributions.Distribution.set_default_validate_args(False)
        model, data = runs.load(cfg.run)
        data.batch_size = cfg.batch_size
        batches = track(data.batches("test"), f"{cfg.num_samples:,} samples an image")
        results = evaluation.evaluate(model, batches, **asked) | asked
        records.write_json(file, results)
    title = f"{cfg.run}, {cfg.num_samples:,} samples an image"
    Console().print(records.table(title, evaluation.rows(results), "value", "standard error"))
    return results


if __name__ == "__main__":
    main()
