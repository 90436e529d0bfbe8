"""Draw pictures of finished runs: python generate.py run=outputs/... what=class_grid count=8."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from vaelab.commands import cli
from vaelab.commands.cli import Node

if TYPE_CHECKING:
    from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt


def settings_schema(
    *,
    run: list[str] | str,
    what: list[str] | str,
    count: PositiveInt | None,
    label: list[int | str] | int | str,
    given: dict[str, str | float | list[float]] | None,
    sampler: Node,
    temperature: NonNegativeFloat,
    images: list[str] | str,
    seed: NonNegativeInt,
    device: str,
    to: str | None,
    trust: bool,
    paths: dict[str, str],
) -> None:
    """Declares the settings of `generate` and their types, for validation; is never called."""


@cli.task(
    "generate", settings_schema, lists=["run", "what", "images", "label"], ends_on_signals=True
)
def main(cfg: DictConfig) -> None:
    """Writes pictures and arrays of each run, prints their paths, then raises what failed.

    Turns off argument validation of torch.distributions for the whole process.
    """
    # Imported here, so that --help and --cfg answer without these slow imports.
    from pathlib import Path

    import torch
    from hydra.utils import instantiate

    from vaelab.commands.many_runs import Failures
    from vaelab.commands.quiet import quieten
    from vaelab.pictures import gallery
    from vaelab.runs import finished, loading
    from vaelab.runs.folder import check_links
    from vaelab.runs.screen import printable, shell_path
    from vaelab.runs.shared_data import SharedData

    quieten()
    torch.distributions.Distribution.set_default_validate_args(False)
    asked = {name: cfg[name] for name in ("count", "temperature", "seed")}
    asked |= {name: cli.as_list(cfg[name]) for name in ("what", "images", "label")}
    asked["given"] = OmegaConf.to_container(cfg.given) if cfg.given else {}
    folders = finished.find_runs(cli.as_list(cfg.run))
    asked["sampler"] = instantiate(cfg.sampler, _convert_="all")
    asked |= {"trust": cfg.trust, "data_folder": Path(cfg.paths.data), "shared": SharedData()}
    device, failures = finished.select_device(cfg.device), Failures("generate", len(folders))
    drawn: dict[Path, list[Path]] = {}
    for folder in folders:
        to = (
            Path(cfg.to)
            if cfg.to and len(folders) == 1
            else loading.output_folder(folder) / "generated"
        )
        with failures.of(folder):
            check_links(to, folder)
            if how_far := finished.unfinished_progress(folder):
                print(printable(f"{folder}: not finished, {how_far}"))
            drawn[folder] = []
            for path in gallery.write_pictures(folder, to, device=device, **asked):
                drawn[folder].append(path)
                print(shell_path(path))
    whole = {folder: paths for folder, paths in drawn.items() if folder not in failures.messages}
    if cfg.to and len(whole) > 1:
        for path in gallery.write_comparisons(whole, Path(cfg.to)):
            print(shell_path(path))
    failures.raise_kept()
