"""Draw pictures of finished runs: python generate.py run=outputs/... what=class_grid count=8."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from vaelab.commands import cli

if TYPE_CHECKING:
    from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt


def settings(
    *,
    run: list[str] | str,
    what: list[str] | str,
    count: PositiveInt | None,
    label: list[int | str] | int | str,
    given: dict[str, str | float | list[float]] | None,
    sampler: Any,
    temperature: NonNegativeFloat,
    images: list[str] | str,
    seed: NonNegativeInt,
    device: str,
    to: str | None,
) -> None:
    """The settings, for the check."""


@cli.task("generate", settings, lists=["run", "what", "images", "label"])
def main(cfg: DictConfig) -> None:
    """Writes pictures and their arrays, and says where each one is."""
    # Here and not above, so that --help and --cfg answer at once.
    from pathlib import Path

    import torch
    from hydra.utils import instantiate

    from vaelab.commands.quiet import quieten
    from vaelab.errors import UserError
    from vaelab.pictures import gallery
    from vaelab.runs import finished
    from vaelab.runs.screen import pasted

    quieten()
    torch.distributions.Distribution.set_default_validate_args(False)
    asked = {name: cfg[name] for name in ("count", "temperature", "seed")}
    asked |= {name: cli.names(cfg[name]) for name in ("what", "images", "label")}
    asked["given"] = OmegaConf.to_container(cfg.given) if cfg.given else {}
    folders = finished.under(cli.names(cfg.run))
    asked["sampler"] = instantiate(cfg.sampler, _convert_="all")
    device, failures = finished.device(cfg.device), []
    drawn: dict[Path, list[Path]] = {}
    for folder in folders:
        to = Path(cfg.to) if cfg.to and len(folders) == 1 else folder / "generated"
        try:
            if how_far := finished.unfinished(folder):
                print(f"{folder}: not finished, {how_far}")
            drawn[folder] = []
            for path in gallery.write(folder, to, device=device, **asked):
                drawn[folder].append(path)
                print(pasted(path))
        except UserError as error:
            failures.append(f"{folder}: {error}" if len(folders) > 1 else str(error))
    if cfg.to and len(drawn) > 1:
        for path in gallery.beside(drawn, Path(cfg.to)):
            print(pasted(path))
    if failures:
        raise UserError("\n".join(failures))
