"""The notebooks run from their own folder, import the flows, and carry no outputs in git."""

import json
from pathlib import Path

import nbclient
import nbformat
import pytest

from tests.conftest import ENV, ROOT, git

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def executed(notebook: Path, project: Path, folder: Path):
    """Run a notebook in a kernel of its own, with its working folder in `folder`."""
    nb = nbformat.read(notebook, as_version=4)
    client = nbclient.NotebookClient(nb, timeout=600, resources={"metadata": {"path": str(folder)}})
    patient = {"PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300"}  # outside a project nobody else says it
    client.execute(env={**ENV, **patient, "PYTHONPATH": str(project)})
    return nb


def shown(nb) -> str:
    outputs = [o for cell in nb.cells if cell.cell_type == "code" for o in cell.outputs]
    return "\n".join(o.get("text") or json.dumps(o.get("data", {})) for o in outputs)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda n: n.stem)
def test_a_notebook_runs_from_its_own_folder_and_shows_tables_and_plots(notebook, built_slice, copy):
    folder = copy(built_slice)
    nb = executed(folder / "notebooks" / notebook.name, folder, folder / "notebooks")
    text = shown(nb)
    assert "evaluate@full: cached" in text  # the flow ran in the kernel, whose event loop was running
    assert "'evaluate@full': 'Cached'" in text.replace('\\"', "'").replace('"', "'")
    assert text.count("image/png") == 2
    assert "household_id" in text
    assert "promote" in text or "hold" in text
    assert "Warning" not in text
    assert git(folder, "status", "--porcelain") == ""


def test_a_notebook_outside_a_project_is_told_so(built_slice, tmp_path):
    with pytest.raises(nbclient.exceptions.CellExecutionError) as told:
        executed(NOTEBOOKS[0], built_slice, tmp_path)
    assert "not inside a Lockstep project in" in str(told.value)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda n: n.stem)
def test_a_notebook_in_git_holds_no_outputs(notebook):
    cells = [c for c in nbformat.read(notebook, as_version=4).cells if c.cell_type == "code"]
    full = [c.id for c in cells if c.outputs or c.execution_count is not None]
    assert not full, f"clear all outputs of {notebook.name} before you commit it"
    assert len(cells) >= 5
