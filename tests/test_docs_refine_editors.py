"""docs/refine-editors.md: its snippets run as they stand, on tiny pipelines and a server of this process."""

import pages
import pytest
import tiny_edit_pipelines
import tiny_pipelines
from naughty_server import NaughtyServer, drawn

from sdg.refine import endpoint
from sdg.refine.instruct import FAMILIES

TEXT, BLOCKS = pages.read("refine-editors.md")


def test_the_snippets_run_as_they_stand(tmp_path, monkeypatch, capsys):
    tiny_edit_pipelines.small_area(monkeypatch)
    names = {"Qwen/Qwen-Image-Edit-2509": tiny_edit_pipelines.qwen_plus()}
    names["black-forest-labs/FLUX.1-Kontext-dev"] = tiny_edit_pipelines.kontext()
    names["black-forest-labs/FLUX.1-Fill-dev"] = tiny_pipelines.flux_fill()
    monkeypatch.chdir(tmp_path)
    for name, pipeline in names.items():
        pipeline.save_pretrained(name)
    with NaughtyServer(lambda request, number: drawn(request["image"][0])).running() as server:
        found: dict[str, object] = {}
        for language, code in BLOCKS:
            if language == "python":
                code = code.replace("http://localhost:8000/v1", server.url).replace(" steps=4", " steps=1, area=4096")
                code = code.replace("steps=30", "steps=2, size=64")
                exec(compile(code, "docs/refine-editors.md", "exec"), found)
    assert capsys.readouterr().out.splitlines() == ["(128, 128)"] * 6
    assert sorted(request["seed"] for request in server.requests) == ["1", "2"]  # they are under way at once
    assert found["hosted"].local


@pytest.mark.parametrize("name", FAMILIES)
def test_the_table_has_every_family(name):
    family = FAMILIES[name]
    (row,) = [line for line in TEXT.splitlines() if line.startswith(f"| `{name}` |")]
    assert [cell.strip() for cell in row.split("|")][3] == str(family.steps)
    assert f" {family.guidance:g} " in row


def test_the_longest_side_is_the_one_that_is_sent():
    assert f"at most {endpoint.LONGER_SIDE} pixels" in TEXT
