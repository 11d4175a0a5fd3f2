"""docs/page.md: its code runs against the page on the embedded detector; what it says can be set is read by app.py."""

import re

import pages
import pytest

from sdg import DefectSet, SDGDetector, microworld
from sdg.refine.loading import load_editor
from sdg.web import build_page, launch_options, microworld_examples

TEXT, BLOCKS = pages.read("page.md")


@pytest.mark.slow
def test_the_code_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    record = next(r for r in microworld.generate(20, seed=5, split="test") if r.defects)
    record.image.save(tmp_path / "picture.png")
    monkeypatch.chdir(tmp_path)
    editor = load_editor("sdg-tiny-t2i")
    page = build_page(SDGDetector.from_pretrained("sdg-tiny"), microworld_examples(2), editor=editor)
    _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    names: dict = {}
    try:
        for language, code in BLOCKS:
            if language == "python":
                exec(code.replace("http://127.0.0.1:7860", address), names)
    finally:
        page.close(verbose=False)
    found = DefectSet.from_json(names["answer"])
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("artifact", "misalignment"))]
    assert len(printed) == len(found) > 0
    assert set(names["said"]["load"]) == {"before", "after"}
    assert all(defect.reason in line for defect, line in zip(found, printed, strict=True))


def test_what_can_be_set_is_read():
    source = (pages.ROOT / "app.py").read_text(encoding="utf-8")
    named = set(re.findall(r"SDG_[A-Z]+(?:_[A-Z]+)*", source))
    told = {name for row in TEXT.splitlines() if row.startswith("| `") for name in re.findall(r"`(SDG_\w+)`", row)}
    assert told == named
