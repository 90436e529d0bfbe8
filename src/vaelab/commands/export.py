"""Write a finished run as files for others: python export.py run=outputs/... to=FOLDER."""

from typing import Literal

from omegaconf import DictConfig

from vaelab.commands import cli


def settings(*, run: str, to: str, what: Literal["all", "safetensors", "onnx"]) -> None:
    """The settings, for the check."""


@cli.task("export", settings)
def main(cfg: DictConfig) -> None:
    """Writes weights, configuration, ONNX files and a model card, and says what is there."""
    # Here and not above, so that --help and --cfg answer at once.
    from pathlib import Path

    from rich.console import Console

    from vaelab.commands.quiet import quieten
    from vaelab.export import writer
    from vaelab.export.onnx_files import TOLERANCE
    from vaelab.runs import finished
    from vaelab.runs.screen import pasted

    quieten()
    console = Console(highlight=False, soft_wrap=True, markup=False)
    folder = Path(cfg.to)
    if how_far := finished.unfinished(Path(cfg.run)):
        console.print(f"{cfg.run}: not finished, {how_far}")
    made = writer.export(
        Path(cfg.run), folder, safetensors=cfg.what != "onnx", onnx=cfg.what != "safetensors"
    )
    for graph in made:
        deviation = f"within {graph.deviation:.1e} of PyTorch, {TOLERANCE:.0e} is allowed"
        console.print(f"{pasted(graph.path)}  {deviation}")
    if cfg.what != "onnx":
        console.print(f"{pasted(folder)}  for vaelab.load({str(folder)!r})")
