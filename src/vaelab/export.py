"""A finished run as files for others: weights, ONNX graphs and what there is to know of them."""

from pathlib import Path

from vaelab import graphs, loading, stamps
from vaelab.card import card
from vaelab.data import store
from vaelab.evaluation.record import Record, scalars
from vaelab.graphs import Graph
from vaelab.records import read_json, write_json


def export(run: Path, folder: Path, *, safetensors: bool, onnx: bool) -> list[Graph]:
    """Writes the best checkpoint of a run into a folder, for `vaelab.load` and for onnxruntime.

    Raises:
        UserError: If the run cannot be loaded; and see `graphs.write`.
    """
    if onnx:
        graphs.check_packages()
    settings, _ = loading.composed(run)
    model = loading.trained(run, "best", trust=True)
    if onnx:
        graphs.check(model)
    folder.mkdir(parents=True, exist_ok=True)
    if safetensors:
        weights = {name: value.numpy() for name, value in model.state_dict().items()}
        store.write(folder / loading.WEIGHTS, weights)
    made = graphs.write(model, folder) if onnx else []
    results = read_json(run / "results.json")
    content = {
        stamps.KEY: stamps.stamp(model.shapes),
        "model": settings,
        "step": model.step,
        "results": {name: value for name, value in results.items() if name.startswith("test/")},
        "evaluation": scalars(Record(run, model.step).content),
    }
    write_json(folder / loading.CONFIG, content)
    (folder / "README.md").write_text(card(model, content, safetensors, made))
    return made
