"""Every notebook of docs/ runs from top to bottom in a kernel of its own, and what is stored in it came from a run."""

import importlib.util

import nbformat
import pages
import pytest
from nbclient.exceptions import CellExecutionError

FOLDER = pages.ROOT / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
spec = importlib.util.spec_from_file_location("run_notebooks", FOLDER / "run.py")
run = importlib.util.module_from_spec(spec)
spec.loader.exec_module(run)


@pytest.fixture(autouse=True)
def kernel(tmp_path, monkeypatch):
    """The kernel finds this checkout, fetches nothing and takes no settings from home."""
    monkeypatch.setenv("PYTHONPATH", str(pages.ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path / "jupyter"))


def shown(notebook):
    """Per cell of code, what kinds of output it has."""
    return [
        [(output.output_type, *sorted(output.get("data", ()))) for output in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_and_shows_what_is_stored(path, tmp_path):
    assert shown(run.tidy(run.execute(path, tmp_path))) == shown(nbformat.read(path, as_version=4))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_small_whole_and_hides_no_failure(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < 300_000
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [tag for cell in code for tag in cell.metadata.get("tags", []) if tag in ("raises-exception", "skip")]
    assert "error" not in {output.output_type for cell in code for output in cell.outputs}


def test_a_cell_that_fails_is_told(tmp_path):
    cells = [nbformat.v4.new_code_cell("1 / 0"), nbformat.v4.new_code_cell("print('never')")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "broken.ipynb")
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        run.execute(tmp_path / "broken.ipynb", tmp_path)


def test_there_is_one_to_begin_with():
    assert FOLDER / "quickstart.ipynb" in NOTEBOOKS
