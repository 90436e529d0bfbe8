"""Write a finished run as files for others: python export.py run=outputs/... to=FOLDER."""

from typing import Literal

from omegaconf import DictConfig

from vaelab.commands import cli


def settings_schema(
    *, run: str, to: str, what: Literal["all", "safetensors", "onnx"], trust: bool
) -> None:
    """Declares the settings of `export` and their types, for validation; is never called."""


@cli.task("export", settings_schema, ends_on_signals=True)
def main(cfg: DictConfig) -> None:
    """Writes a run's weights, configuration, ONNX files and model card; prints their paths."""
    # Imported here, so that --help and --cfg answer without these slow imports.
    from pathlib import Path

    from rich.console import Console

    from vaelab.commands.quiet import quieten
    from vaelab.export import writer
    from vaelab.export.onnx_files import TOLERANCE
    from vaelab.runs import finished
    from vaelab.runs.folder import check_links
    from vaelab.runs.screen import printable, shell_path

    quieten()
    console = Console(highlight=False, soft_wrap=True, markup=False)
    folder = Path(cfg.to)
    check_links(folder, Path(cfg.run))
    if how_far := finished.unfinished_progress(Path(cfg.run)):
        console.print(printable(f"{cfg.run}: not finished, {how_far}"))
    made = writer.export_run(
        Path(cfg.run),
        folder,
        safetensors=cfg.what != "onnx",
        onnx=cfg.what != "safetensors",
        trust=cfg.trust,
    )
    for file in made:
        deviation = f"within {file.deviation:.1e} of PyTorch, {TOLERANCE:.0e} is allowed"
        console.print(f"{shell_path(file.path)}  {deviation}")
    if cfg.what != "onnx":
        console.print(f"{shell_path(folder)}  for vaelab.load({str(folder)!r})")
