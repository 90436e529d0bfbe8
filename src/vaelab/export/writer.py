"""Export of a finished run: the function that writes the exported folder."""

from hashlib import sha256
from pathlib import Path

from vaelab.data import store
from vaelab.evaluation.record import Record, scalar_estimates
from vaelab.export import onnx_files
from vaelab.export.model_card import model_card
from vaelab.export.onnx_files import OnnxFile
from vaelab.files import checksums
from vaelab.files.atomic import atomic_file, make_folder, write_text
from vaelab.runs import loading
from vaelab.runs.file_reading import kept_source_settings
from vaelab.training import checkpoint_format
from vaelab.training.json_files import json_text, read_json


def export_run(
    run: Path, folder: Path, *, safetensors: bool, onnx: bool, trust: bool = False
) -> list[OnnxFile]:
    """Writes a run's best checkpoint as weights and ONNX files, with config.json and README.md.

    Without a best checkpoint it exports the last. Overwrites files of the same names.

    Args:
        run: The run folder.
        folder: The folder to write to; created if it is missing.
        safetensors: Whether to write the weights, for `vaelab.load`.
        onnx: Whether to write the ONNX files.
        trust: Whether the configuration of the run may name code outside vaelab.

    Returns:
        The ONNX files.

    Raises:
        UserError: If the run cannot be loaded, or for the reasons in `write_onnx_files`.
    """
    if onnx:
        onnx_files.check_packages()
    model = loading.load_run_model(run, "best", trust)
    cfg = loading.read_run_config(run, trust)
    settings = loading.resolve_node(run, cfg, "model")
    if onnx:
        onnx_files.check_exportable(model)
    make_folder(folder)
    weights = store.safetensors_bytes({n: v.numpy() for n, v in model.state_dict().items()})
    if safetensors:
        with atomic_file(folder / loading.WEIGHTS) as file:
            file.write(weights)
    made = onnx_files.write_onnx_files(model, folder) if onnx else []
    results = read_json(run / "results.json")
    content = {
        checkpoint_format.KEY: checkpoint_format.format_record(model.shapes),
        # Also without writing them: the folder may have weights of an earlier export
        loading.WEIGHTS_CHECKSUM: sha256(weights).hexdigest(),
        "model": settings,
        **kept_source_settings(cfg),
        "step": model.step,
        "results": {
            name: value
            for name, value in results.items()
            if name.startswith("test/") and isinstance(value, float)
        },
        "evaluation": scalar_estimates(Record(run, model.step).content),
    }
    signed = content | {checksums.NAME: checksums.ZEROS}
    write_text(folder / loading.CONFIG, checksums.with_checksum(json_text(signed)))
    write_text(folder / "README.md", model_card(model, content, safetensors, made))
    return made
