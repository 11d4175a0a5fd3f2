"""Run the notebooks of this folder from top to bottom and keep what they show: python docs/notebooks/run.py"""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent


def execute(path: Path, folder: Path = FOLDER) -> nbformat.NotebookNode:
    """The notebook with the outputs of a fresh kernel that works in ``folder``.

    Raises:
        nbclient.exceptions.CellExecutionError: with the cell and its traceback, where one fails.
    """
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    return notebook


def tidy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook without progress bars, times and the second format of each picture, to keep the file small."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.outputs:
            if "image/jpeg" in output.get("data", {}):
                output.data.pop("image/png", None)
    notebook.metadata = {"kernelspec": notebook.metadata.kernelspec, "language_info": {"name": "python"}}
    return notebook


if __name__ == "__main__":
    for path in sorted(FOLDER.glob("*.ipynb")):
        nbformat.write(tidy(execute(path)), path)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
