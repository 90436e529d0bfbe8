"""A finished run as files for others: weights, ONNX graphs and what there is to know of them."""

from pathlib import Path

from vaelab.data import store
from vaelab.evaluation.record import Record, scalars
from vaelab.export import onnx_files
from vaelab.export.model_card import card
from vaelab.export.onnx_files import Graph
from vaelab.runs import loading
from vaelab.training import checkpoint_format
from vaelab.training.json_files import read_json, write_json


def export(run: Path, folder: Path, *, safetensors: bool, onnx: bool) -> list[Graph]:
    """Writes the best checkpoint of a run into a folder, for `vaelab.load` and for onnxruntime.

    Raises:
        UserError: If the run cannot be loaded; and see `graphs.write`.
    """
    if onnx:
        onnx_files.check_packages()
    settings, _ = loading.composed(run)
    model = loading.trained(run, "best", trust=True)
    if onnx:
        onnx_files.check(model)
    folder.mkdir(parents=True, exist_ok=True)
    if safetensors:
        weights = {name: value.numpy() for name, value in model.state_dict().items()}
        store.write(folder / loading.WEIGHTS, weights)
    made = onnx_files.write(model, folder) if onnx else []
    results = read_json(run / "results.json")
    content = {
        checkpoint_format.KEY: checkpoint_format.stamp(model.shapes),
        "model": settings,
        "step": model.step,
        "results": {name: value for name, value in results.items() if name.startswith("test/")},
        "evaluation": scalars(Record(run, model.step).content),
    }
    write_json(folder / loading.CONFIG, content)
    (folder / "README.md").write_text(card(model, content, safetensors, made))
    return made
