"""Tests that the notebooks in examples/ are small, without outputs, and valid notebooks."""

import ast
import json
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))
KEYS = {
    "markdown": {"cell_type", "id", "metadata", "source"},
    "code": {"cell_type", "id", "metadata", "source", "execution_count", "outputs"},
}
"""The keys of cells, by nbformat 4.5."""


def read(name):
    """Returns the content of a notebook."""
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def test_three_notebooks():
    assert NOTEBOOKS == ["conditional_generation.ipynb", "first_vae.ipynb", "sweep.ipynb"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_is_valid_nbformat_4_without_outputs(name):
    content = read(name)
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    assert content.keys() == {"cells", "metadata", "nbformat", "nbformat_minor"}
    assert content["metadata"]["kernelspec"]["name"] == "python3"
    for cell in content["cells"]:
        assert cell.keys() == KEYS[cell["cell_type"]]
        assert cell["metadata"] == {}
        assert all(isinstance(line, str) for line in cell["source"])
        if cell["cell_type"] == "code":
            assert (cell["execution_count"], cell["outputs"]) == (None, [])
    ids = [cell["id"] for cell in content["cells"]]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", each) for each in ids)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_is_under_20_kb(name):
    assert (FOLDER / name).stat().st_size < 20_000


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_first_cells_say_how_to_install_and_read_the_number_of_epochs(name):
    first, second, *rest = ["".join(cell["source"]) for cell in read(name)["cells"]]
    assert "pip install" in first
    assert 'EPOCHS = int(os.environ.get("VAELAB_EXAMPLE_EPOCHS", ' in second
    assert "EPOCHS" in "".join(rest)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_code_cells_are_python_and_shell_commands_of_vaelab(name):
    for cell in read(name)["cells"]:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            ast.parse(re.sub(r"^!vaelab .*$", "pass", source, flags=re.M))
