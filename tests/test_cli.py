import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from scripted_detector import ScriptedDetector
from typer.testing import CliRunner

from sdg import __version__, cli
from sdg.cli import shared
from sdg.defects import DefectSet


@pytest.fixture
def detector(monkeypatch):
    made = ScriptedDetector()
    monkeypatch.setattr(shared, "load_detector", lambda *_, **__: made)
    return made


@pytest.fixture
def pictures(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (64, 48), "grey").save(tmp_path / name)
    (tmp_path / "bad.png").write_text("no picture")
    return tmp_path


def run(*arguments: str | Path):
    return CliRunner(env={"COLUMNS": "160"}).invoke(cli.app, [str(argument) for argument in arguments])


def lines(result) -> list[dict]:
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.parametrize(
    ("files", "caption", "code", "said"),
    [
        (["a.png"], "a red house", 0, ["misalignment", "92 critical", "50, 200, 900, 950", "the <b>house</b> is blue"]),
        (["a.png"], "clean", 0, ["no defect found"]),
        (["a.png"], "unreadable", 1, ["could not be read", "the model wrote", "I would rather not say"]),
        (["a.png"], "broken", 1, ["RuntimeError", "out of memory"]),
        (["bad.png"], "clean", 1, ["bad.png", "is not an image"]),
        (["missing.png"], "clean", 1, ["missing.png", "is not a file"]),
        (["a.png", "bad.png", "b.png"], "clean", 1, ["a.png: no defect", "is not an image", "b.png: no defect"]),
    ],
)
def test_detect_prints_what_became_of_every_picture(detector, pictures, files, caption, code, said):
    result = run("detect", *[pictures / file for file in files], "--caption", caption)
    assert result.exit_code == code
    for words in said:
        assert words in result.stdout


def test_a_model_of_one_world_says_so(detector, pictures):
    said = run("detect", pictures / "a.png").stderr
    assert "was made for pictures of houses only" in said
    assert "--model P1n3/sdg-detector-grpo" in said
    detector.made_for = None
    assert "was made for" not in run("detect", pictures / "a.png").stderr


def test_an_answer_that_cannot_be_read_is_not_called_clean(detector, pictures):
    assert "no defect" not in run("detect", pictures / "a.png", "--caption", "unreadable").output


def test_defects_are_listed_from_the_most_important_on(detector, pictures):
    text = run("detect", pictures / "a.png", "--caption", "a red house").stdout
    assert text.index("misalignment") < text.index("artifact")


def test_json_lines_hold_one_picture_each(detector, pictures):
    result = run("detect", *[pictures / f for f in ("a.png", "bad.png", "b.png")], "--caption", "a red house", "--json")
    first, failed, last = lines(result)
    assert result.exit_code == 1
    assert [first["image"], last["image"]] == [str(pictures / "a.png"), str(pictures / "b.png")]
    assert len(DefectSet.from_json(first)) == 2
    assert set(failed) == {"image", "caption", "error"}
    assert "not an image" in failed["error"]


def test_json_keeps_the_text_that_could_not_be_read(detector, pictures):
    (line,) = lines(run("detect", pictures / "a.png", "--caption", "unreadable", "--json"))
    assert line["parse_error"]
    assert "rather not" in line["raw"]


@pytest.mark.parametrize(("size", "calls"), [(1, [1, 1, 1]), (2, [2, 1]), (8, [3])])
def test_pictures_go_to_the_model_in_batches(detector, pictures, size, calls):
    names = [pictures / f for f in ("a.png", "b.png", "c.png")]
    assert run("detect", *names, "--caption", "clean", "--batch-size", str(size)).exit_code == 0
    assert detector.calls == calls


def test_a_picture_that_breaks_a_batch_does_not_cost_its_neighbours(detector, pictures, monkeypatch):
    whole = ScriptedDetector.__call__

    def fails_on_narrow_pictures(self, images, captions, *, batch_size):
        if any(image.width < 20 for image in images):
            raise RuntimeError("too narrow")
        return whole(self, images, captions, batch_size=batch_size)

    monkeypatch.setattr(ScriptedDetector, "__call__", fails_on_narrow_pictures)
    Image.new("RGB", (10, 40)).save(pictures / "b.png")
    names = [pictures / f for f in ("a.png", "b.png", "c.png")]
    first, failed, last = lines(run("detect", *names, "--caption", "clean", "--json"))
    assert "error" not in {**first, **last}
    assert failed["error"] == "RuntimeError: too narrow"


def test_an_overlay_of_one_picture_is_the_file_that_was_named(detector, pictures):
    target = pictures / "marked.jpg"
    assert run("detect", pictures / "a.png", "--caption", "a red house", "--overlay", target).exit_code == 0
    assert Image.open(target).size == (683, 512)


def test_overlays_of_many_pictures_fill_a_folder(detector, pictures):
    (pictures / "other").mkdir()
    Image.new("RGB", (64, 64)).save(pictures / "other" / "a.png")
    names = [pictures / "a.png", pictures / "bad.png", pictures / "other" / "a.png"]
    result = run("detect", *names, "--caption", "a red house", "--overlay", pictures / "new" / "folder")
    assert result.exit_code == 1
    assert {p.name for p in (pictures / "new" / "folder").iterdir()} == {"a.png", "a-2.png"}


def test_no_overlay_is_drawn_of_an_answer_that_cannot_be_read(detector, pictures):
    run("detect", pictures / "a.png", "--caption", "unreadable", "--overlay", pictures / "marked.png")
    assert not (pictures / "marked.png").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["detect"], "Missing argument"),
        (["detect", "a.png", "--batch-size", "0"], "batch-size"),
        (["detect", "a.png", "--overlay", "no/such/folder/x.png"], "does not exist"),
        (["microworld"], "--sheet"),
        (["microworld", "--sheet", "sheet.txt"], "does not end like a picture"),
        (["microworld", "--sheet", "sheet.png", "--split", "exam"], "exam"),
        (["paint"], "paint"),
    ],
)
def test_wrong_usage_exits_with_2(detector, arguments, said):
    result = run(*arguments)
    assert result.exit_code == 2
    assert said in result.output


def test_a_model_that_cannot_be_loaded_is_named(pictures):
    result = run("detect", pictures / "a.png", "--model", pictures / "nothing")
    assert result.exit_code == 2
    assert str(pictures / "nothing") in result.output.replace("\n", "")
    assert "Traceback" not in result.output


def test_microworld_writes_a_sheet(tmp_path):
    target = tmp_path / "sheet.png"
    result = run("microworld", "--sheet", target, "--n", "3", "--split", "test", "--seed", "5")
    assert result.exit_code == 0
    assert Image.open(target).width > 3 * 256
    again = tmp_path / "again.png"
    run("microworld", "--sheet", again, "--n", "3", "--split", "test", "--seed", "5")
    assert again.read_bytes() == target.read_bytes()


def test_python_m_sdg_answers_without_loading_the_heavy_libraries():
    code = (
        "import runpy, sys\n"
        "sys.argv = ['sdg', '--version']\n"
        "try: runpy.run_module('sdg', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "print([m for m in ('torch', 'transformers', 'gradio', 'PIL.Image', 'datasets') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == [f"sdg {__version__}", "[]"]


@pytest.mark.parametrize("arguments", [["--help"], ["detect", "--help"], ["microworld", "--help"]])
def test_help_has_examples_where_there_are_options(arguments):
    result = run(*arguments)
    assert result.exit_code == 0
    assert ("Example" in result.output) is (len(arguments) == 2)
