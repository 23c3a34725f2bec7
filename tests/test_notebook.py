"""The notebook runs from its first cell to its last, with a tiny budget."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

REPOSITORY = Path(__file__).parents[1]

TINY = (
    "data.input_size=[64,64] data.phantom.films=8 data.phantom.validation_films=2 data.workers=0 "
    "train.batch_size=2 train.batch_norm_calibration=1 train.phases.1.epochs=1"
)


@pytest.mark.slow
def test_the_colab_notebook_runs_from_first_to_last_cell(tmp_path, monkeypatch):
    monkeypatch.setenv("VERTEBRA_KP_NOTEBOOK_RUN", str(tmp_path / "run"))
    monkeypatch.setenv("VERTEBRA_KP_NOTEBOOK_SET", TINY)
    folder = REPOSITORY / "notebooks"
    notebook = nbformat.read(folder / "quickstart.ipynb", as_version=4)
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}})
    client.execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("mre_px" in output.get("text", "") for output in shown)
    assert any("image/png" in output.get("data", {}) for output in shown)
