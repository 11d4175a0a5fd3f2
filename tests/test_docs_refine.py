"""docs/refine.md: its snippets run as they stand, on the embedded detector and editor."""

import dataclasses
import re

import pages
import pytest
from PIL import Image

from sdg.refine.feedback import Feedback
from sdg.refine.refiner import Options

TEXT, BLOCKS = pages.read("refine.md")


@pytest.mark.slow
def test_the_snippets_run_as_they_stand(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    found: dict[str, object] = {}
    for language, code in BLOCKS:
        if language == "python":
            exec(compile(code, "docs/refine.md", "exec"), found)
    refinement, said = found["refinement"], capsys.readouterr().out.splitlines()
    assert said[0] == refinement.reason
    assert len(said) == 2
    saved = Image.open("mended.png")
    assert saved.size == refinement.original.size
    assert saved.tobytes() == refinement.image.tobytes()


def test_the_table_has_every_mode():
    for mode in Feedback:
        (row,) = [line for line in TEXT.splitlines() if line.startswith(f'| `"{mode.value}"` |')]
        cells = [cell.strip()[:2] for cell in row.split("|")[2:5]]
        assert cells == ["ye" if mode.boxes else "no"] * 2 + ["ye" if mode.text else "no"]


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Options)])
def test_every_option_is_told(name):
    assert re.search(rf"`{name}[`=]", TEXT)
