"""The commands of docs/score-your-detector.md run as they stand, one after another, in an empty folder."""

import json
import subprocess
import sys

import pages
import pytest

PAGE, BLOCKS = pages.read("score-your-detector.md")


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What every block printed, by its text, and the folder in which they ran."""
    folder = tmp_path_factory.mktemp("score")
    environment = pages.shell(folder)
    environment |= {"HF_HOME": str(folder / "home")}
    printed = {}
    for language, code in BLOCKS:
        command = ["bash", "-euo", "pipefail", "-c"] if language == "bash" else [sys.executable, "-c"]
        run = subprocess.run([*command, code], cwd=folder, env=environment, capture_output=True, text=True)
        assert run.returncode == 0, f"{code}\n{run.stdout}\n{run.stderr}"
        printed[code] = run.stdout
    return printed, folder


def output_of(said, part: str) -> str:
    return next(text for code, text in said[0].items() if part in code)


def test_the_page_has_nothing_but_commands_that_run():
    assert [language for language, _ in BLOCKS].count("bash") >= 8
    assert {language for language, _ in BLOCKS} == {"bash", "python"}


@pytest.mark.slow
def test_the_files_that_are_promised_are_written(said):
    _, folder = said
    scores = json.loads((folder / "scores.json").read_text())["results"]["predictions"]
    assert (scores["artifact/box_f1@0.5"], scores["misalignment/box_f1@0.5"]) == (pytest.approx(2 / 3), 1)
    assert (scores["artifact/desc_cos@0.1"], scores["parse_rate"]) == (None, 0.75)
    assert "SDG (GRPO) *" in (folder / "report.md").read_text()
    assert (folder / "boxes.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("eval predictions.jsonl references.jsonl\n", ["SDG (GRPO) *", "Parse rate 0.750"]),
        ('evaluate.load("sdg_eval")', ["0.666", " 1.0 0.75"]),
        ("--against before.jsonl", ["predictions.jsonl against before.jsonl", "difference"]),
        ("--by generator", ["FLUX.2-dev (2 images)", "SANA-1.5 (2 images)", "artifact, major", "by subtype"]),
        ("--order yxyx", ["y_first.jsonl"]),
        ("from sdg import SDGEval", ["Difference(value=0.66", "FLUX.2-dev 1.0", "SANA-1.5 0.0"]),
    ],
)
def test_what_the_commands_print(said, command, words):
    printed = output_of(said, command)
    for word in words:
        assert word in printed
