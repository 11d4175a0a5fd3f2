import os
import subprocess
import sys
from pathlib import Path

import pytest

import sdg

HEAVY = ("torch", "gradio", "transformers", "diffusers", "trl", "evaluate")


def fresh_python(code: str, folder: Path) -> str:
    """What ``code`` prints in a new interpreter, in an empty home and working directory."""
    environment = {"HOME": str(folder), "PATH": os.environ["PATH"], "PYTHONPATH": str(Path(sdg.__file__).parents[1])}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    run = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.mark.parametrize(
    "use",
    [
        "import sdg",
        "from sdg import Defect, DefectSet, parse_response; parse_response('<answer>[]</answer>')",
        "from sdg import SDGEval; SDGEval().compute(predictions=[[], '[]'], references=[[], []])",
    ],
)
def test_importing_is_light_and_writes_nothing(use, tmp_path):
    loaded = fresh_python(f"{use}\nimport sys\nprint(*[name for name in {HEAVY} if name in sys.modules])", tmp_path)
    assert loaded == ""
    assert list(tmp_path.rglob("*")) == []


def test_the_public_names_are_listed():
    assert set(sdg.__all__) <= set(dir(sdg))
    with pytest.raises(AttributeError, match="module 'sdg' has no attribute 'Detector'"):
        sdg.Detector  # noqa: B018
